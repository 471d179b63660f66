using MicroVm.Linux;

namespace MicroVm.Vmm.Fs;

/// <summary>Has a server close the descriptors of files that are not in use, while there are any: an idle VM has no timer.</summary>
internal sealed class IdleFileTimer : IEventHandler, IDisposable
{
    /// <summary>A descriptor is closed between one and two of these after its last use.</summary>
    private const long PeriodMilliseconds = 2000;

    private readonly FuseServer _server;
    private readonly TimerFd _timer = new();

    /// <summary>Makes the timer, which starts when the server has something to close.</summary>
    public IdleFileTimer(FuseServer server)
    {
        _server = server;
        server.OnIdleFiles(Start);
    }

    /// <summary>To be watched by the loop of a thread that may call the server; its events go to this object.</summary>
    public SafeFd Fd => _timer.Fd;

    void IEventHandler.OnReady(SafeFd fd, uint events)
    {
        _timer.Drain();
        if (_server.CloseIdleFiles())
        {
            Start();
        }
    }

    /// <summary>Stops it; the loop must not watch it any more.</summary>
    public void Dispose()
    {
        _server.OnIdleFiles(null);
        _timer.Dispose();
    }

    private void Start() => _timer.Set(PeriodMilliseconds);
}
