using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Vmm.Startup;

/// <summary>Turns SIGTERM, SIGINT and SIGHUP into a call on the event loop, so that sockets are removed in the end.</summary>
public sealed class TerminationSignals : IEventHandler
{
    private readonly SignalEvents _signals = new([Libc.SIGTERM, Libc.SIGINT, Libc.SIGHUP]);
    private readonly Action _onSignal;

    /// <summary>Installs handlers for the rest of the process's life.</summary>
    /// <exception cref="LinuxException">The kernel refuses.</exception>
    public TerminationSignals(EventLoop loop, Action onSignal)
    {
        ArgumentNullException.ThrowIfNull(loop);
        _onSignal = onSignal;
        loop.Add(_signals.Event.Fd, Libc.EPOLLIN, this);
    }

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        _ = _signals.Event.Drain();
        _onSignal();
    }
}
