using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Net;

/// <summary>
/// A queue pair from activation to reset, on a thread of its device. A write to a tap runs the host's network stack up to
/// the receiver, so it is not done on the loop that all other devices share.
/// </summary>
internal sealed class NetPair : IEventHandler, IDeferredWork, IDisposable
{
    private readonly Virtqueue _rx;
    private readonly Virtqueue _tx;
    private readonly TapBackend _backend;
    private readonly SafeFd _tap;
    private readonly IVirtioInterrupt _interrupt;
    private readonly DeviceThread _thread;
    private readonly TimerFd _rxTimer = new();
    private readonly TimerFd _txTimer = new();
    private readonly NetReceiver _receiver;
    private readonly NetTransmitter _transmitter;
    private uint _watched;
    private bool _turnQueued;
    private bool _rxWork = true;
    private bool _txWork = true;
    private bool _rxEnabled = true;
    private bool _dead;
    private bool _disposed;

    /// <summary>Makes the pair, which <paramref name="thread"/> serves from <see cref="Begin"/> on.</summary>
    public NetPair(DeviceThread thread, Virtqueue rx, Virtqueue tx, TapBackend backend, SafeFd tap, IVirtioInterrupt interrupt, NetReceiver receiver, NetTransmitter transmitter)
    {
        (_rx, _tx, _backend, _tap, _interrupt, _receiver, _transmitter) = (rx, tx, backend, tap, interrupt, receiver, transmitter);
        _thread = thread;
    }

    /// <summary>Begins to serve, with what waits already. The thread.</summary>
    public void Begin()
    {
        _thread.Loop.Add(_rx.Kick.Fd, Libc.EPOLLIN, this);
        _thread.Loop.Add(_tx.Kick.Fd, Libc.EPOLLIN, this);
        _thread.Loop.Add(_rxTimer.Fd, Libc.EPOLLIN, this);
        _thread.Loop.Add(_txTimer.Fd, Libc.EPOLLIN, this);
        _watched = Libc.EPOLLIN;
        _thread.Loop.Add(_tap, _watched, this);
        ScheduleTurn();
    }

    /// <summary>Lets the pair receive, or not (5.1.6.5.5). Any thread.</summary>
    public void Enable(bool enabled) => _thread.Loop.Post(() =>
    {
        _rxEnabled = enabled;
        _rxWork = enabled;
        ScheduleTurn();
    });

    /// <summary>Lets go of queues and tap. The thread.</summary>
    public void Dispose()
    {
        _disposed = true;
        foreach (SafeFd fd in (ReadOnlySpan<SafeFd>)[_rx.Kick.Fd, _tx.Kick.Fd, _rxTimer.Fd, _txTimer.Fd, _tap])
        {
            _thread.Loop.Remove(fd);
        }

        _receiver.Dispose();
        _transmitter.Dispose();
        _rxTimer.Dispose();
        _txTimer.Dispose();
    }

    void IEventHandler.OnReady(SafeFd fd, uint events)
    {
        if (fd == _tap)
        {
            _rxWork |= (events & Libc.EPOLLIN) != 0;
            _txWork |= (events & Libc.EPOLLOUT) != 0;
            if ((events & Libc.EPOLLERR) != 0)
            {
                Die();
            }
        }
        else if (fd == _tx.Kick.Fd)
        {
            _ = _tx.Kick.Drain();
            _txWork = true;
        }
        else if (fd == _rx.Kick.Fd)
        {
            _ = _rx.Kick.Drain();
            _rxWork = true;
        }
        else if (fd == _rxTimer.Fd)
        {
            _rxTimer.Drain();
            _rxWork = true;
        }
        else
        {
            _txTimer.Drain();
            _txWork = true;
        }

        ScheduleTurn();
    }

    void IDeferredWork.RunDeferred()
    {
        _turnQueued = false;
        if (_disposed || _thread.IsStopping)
        {
            // Level-triggered, and nobody takes its frames any more.
            _thread.Loop.Remove(_tap);
            return;
        }

        TurnEnd rx = _rxWork && _rxEnabled && !_dead ? _receiver.Turn() : TurnEnd.Idle;
        TurnEnd tx = _txWork && !_dead ? _transmitter.Turn() : TurnEnd.Idle;
        bool interrupt = _rx.Publish();
        interrupt |= _tx.Publish();
        if (interrupt)
        {
            _interrupt.SignalUsed();
        }

        _ = _rx.ReportIfBroken(_interrupt);
        _ = _tx.ReportIfBroken(_interrupt);
        if (rx == TurnEnd.Dead || tx == TurnEnd.Dead)
        {
            Die();
        }

        if (_dead)
        {
            return;
        }

        bool waitForRoom = tx == TurnEnd.Blocked;
        Watch(_rxWork, rx, waitForRoom);
        _rxWork = rx == TurnEnd.More;
        _txWork = tx == TurnEnd.More;
        if (rx == TurnEnd.Throttled)
        {
            _rxTimer.Set(_receiver.ThrottleMilliseconds);
        }

        if (tx == TurnEnd.Throttled)
        {
            _txTimer.Set(_transmitter.ThrottleMilliseconds);
        }

        if (_rxWork || _txWork)
        {
            ScheduleTurn();
        }
    }

    // The tap is level-triggered: while its frames cannot be taken it must not be waited for.
    private void Watch(bool received, TurnEnd rx, bool waitForRoom)
    {
        uint wanted = _watched & Libc.EPOLLIN;
        if (!_rxEnabled)
        {
            wanted = 0;
        }
        else if (received)
        {
            wanted = rx is TurnEnd.Blocked or TurnEnd.Throttled ? 0 : Libc.EPOLLIN;
        }

        wanted |= waitForRoom ? Libc.EPOLLOUT : 0;
        if (wanted != _watched)
        {
            _watched = wanted;
            _thread.Loop.Modify(_tap, wanted);
        }
    }

    // Its interface was deleted, with the namespace that it was in.
    private void Die()
    {
        if (!_dead)
        {
            _dead = true;
            _thread.Loop.Remove(_tap);
            _backend.TellGone(_thread.Name);
        }
    }

    private void ScheduleTurn()
    {
        if (!_turnQueued && !_disposed)
        {
            _turnQueued = true;
            _thread.Loop.Defer(this);
        }
    }
}
