using MicroVm.Linux;
using MicroVm.VirtioFs.Operations;

namespace MicroVm.VirtioFs;

/// <summary>
/// Has a server close the descriptors of files that are not in use and look after files that are mapped, while there are any: an idle VM
/// has no timer.
/// </summary>
internal sealed class IdleFileTimer : IEventHandler, IDisposable
{
    /// <summary>A descriptor is closed between one and two of these after its last use.</summary>
    private const long PeriodMilliseconds = 2000;

    /// <summary>How long a process may stand still that touches a page which its mapped file has lost.</summary>
    private const long MappedPeriodMilliseconds = 500;

    private readonly Upkeep _upkeep;
    private readonly TimerFd _timer = new();
    private long _sinceClosing;
    private bool _left;

    /// <summary>Makes the timer, which starts when the server has something to close.</summary>
    public IdleFileTimer(Upkeep upkeep)
    {
        _upkeep = upkeep;
        upkeep.OnIdleFiles(Start);
    }

    /// <summary>To be watched by the loop of a thread that may call the server; its events go to this object.</summary>
    public SafeFd Fd => _timer.Fd;

    void IEventHandler.OnReady(SafeFd fd, uint events)
    {
        _timer.Drain();
        bool mapped = _upkeep.LookAfterMappings();
        _sinceClosing += mapped ? MappedPeriodMilliseconds : PeriodMilliseconds;
        if (_sinceClosing >= PeriodMilliseconds)
        {
            _sinceClosing = 0;
            _left = _upkeep.CloseIdleFiles();
        }

        if (mapped || _left)
        {
            Start();
        }
    }

    /// <summary>Stops it; the loop must not watch it any more.</summary>
    public void Dispose()
    {
        _upkeep.OnIdleFiles(null);
        _timer.Dispose();
    }

    private void Start() => _timer.Set(_upkeep.MappingCount > 0 ? MappedPeriodMilliseconds : PeriodMilliseconds);
}
