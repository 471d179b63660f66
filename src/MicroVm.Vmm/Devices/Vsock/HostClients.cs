using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Vmm.Devices.Vsock;

/// <summary>
/// Host clients until their streams are established: the listener, which pauses while there is no room for them, and their time
/// limits. Owns the listener.
/// </summary>
internal sealed class HostClients : IEventHandler, IDisposable
{
    private const long TickMilliseconds = 1000;
    private readonly List<VsockStream> _waiting = [];
    private readonly TimerFd _timer = new();
    private readonly SafeFd _listener;
    private readonly EventLoop _loop;
    private readonly VsockMuxer _muxer;
    private bool _paused;
    private bool _timerRunning;

    /// <summary>Accepts what connects to <paramref name="listener"/>.</summary>
    public HostClients(SafeFd listener, EventLoop loop, VsockMuxer muxer)
    {
        _listener = listener;
        _loop = loop;
        _muxer = muxer;
        loop.Add(_listener, Libc.EPOLLIN, this);
        loop.Add(_timer.Fd, Libc.EPOLLIN, this);
    }

    /// <summary>How long a client may take to send its CONNECT line.</summary>
    public long HandshakeMilliseconds { get; set; } = VsockLimits.HandshakeMilliseconds;

    /// <summary>How long the guest may take to answer a request.</summary>
    public long RequestMilliseconds { get; set; } = VsockLimits.RequestMilliseconds;

    /// <summary>No client is accepted until there is room again.</summary>
    public bool IsPaused => _paused;

    private bool CanAccept => _muxer.CanOpen && _waiting.Count < VsockLimits.MaxPending;

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        if (fd == _listener)
        {
            Accept();
        }
        else
        {
            _timer.Drain();
            OnTimer();
        }
    }

    /// <summary>Accepts again when there is room.</summary>
    public void Resume()
    {
        if (_paused && CanAccept)
        {
            _paused = false;
            _loop.Modify(_listener, Libc.EPOLLIN);
        }
    }

    /// <summary>The guest's driver is up: asks it for each client that waits for that.</summary>
    public void RequestHeld()
    {
        foreach (VsockStream stream in _waiting)
        {
            if (stream.State == VsockState.Held)
            {
                _muxer.Request(stream);
            }
        }
    }

    /// <summary>The guest is asked for this client now.</summary>
    public void StartRequest(VsockStream stream)
    {
        stream.Deadline = Environment.TickCount64 + RequestMilliseconds;
        StartTimer();
    }

    /// <summary>A client waits no more.</summary>
    public void Remove(VsockStream stream) => _waiting.Remove(stream);

    /// <inheritdoc/>
    public void Dispose()
    {
        _loop.Remove(_listener);
        _loop.Remove(_timer.Fd);
        _listener.Dispose();
        _timer.Dispose();
    }

    private void Accept()
    {
        while (CanAccept)
        {
            SafeFd? socket = UnixSocket.TryAccept(_listener, out Errno errno);
            if (socket is null)
            {
                if (errno == Errno.EAGAIN)
                {
                    return;
                }

                // Out of descriptors or memory: the client goes on waiting, and the next tick looks again.
                break;
            }

            if (_muxer.TryOpenClient(socket) is { } stream)
            {
                stream.Deadline = Environment.TickCount64 + HandshakeMilliseconds;
                _waiting.Add(stream);
                StartTimer();
                _muxer.OnHostReady(stream);
            }
        }

        // Clients wait in the socket's backlog while there is no room for them.
        _paused = true;
        _loop.Modify(_listener, 0);
        StartTimer();
    }

    private void OnTimer()
    {
        _timerRunning = false;
        long now = Environment.TickCount64;
        for (int i = _waiting.Count - 1; i >= 0; i--)
        {
            VsockStream stream = _waiting[i];
            if (stream.State != VsockState.Held && now >= stream.Deadline)
            {
                _muxer.TimeOut(stream);
            }
        }

        Resume();
        bool waiting = _paused;
        foreach (VsockStream stream in _waiting)
        {
            waiting |= stream.State != VsockState.Held;
        }

        if (waiting)
        {
            StartTimer();
        }
    }

    private void StartTimer()
    {
        if (!_timerRunning)
        {
            _timerRunning = true;
            _timer.Set(TickMilliseconds);
        }
    }
}
