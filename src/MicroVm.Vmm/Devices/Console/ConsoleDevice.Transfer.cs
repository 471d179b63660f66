using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Vmm.Devices.Console;

/// <content>Moving bytes, and waiting for the host's descriptors.</content>
public sealed unsafe partial class ConsoleDevice
{
    private const int MaxVectors = 16;

    // Looked at before it is watched: what cannot be watched is always ready.
    private bool _inputReady = true;
    private bool _inputWatched;
    private bool _inputEnded;
    private bool _outputWatched;
    private bool _outputEnded;

    // The chain in _txChain is partly written.
    private bool _txBusy;
    private ulong _txDone;

    /// <summary>Writes the guest's output.</summary>
    /// <returns>True when the turn's budget ended it.</returns>
    private bool Output()
    {
        if (_outputWatched)
        {
            return false;
        }

        _tx!.DisableNotifications();
        for (int i = 0; i < TurnBudget; i++)
        {
            if (!_txBusy)
            {
                if (_tx.Pending() == 0 && (_tx.IsBroken || !_tx.EnableNotifications()))
                {
                    return false;
                }

                if (!_tx.TryPop(_txChain!))
                {
                    return false;
                }

                _txBusy = true;
                _txDone = 0;
            }

            if (!WriteChain())
            {
                WatchOutput(true);
                return !_outputWatched;
            }
        }

        return true;
    }

    /// <returns>False when the host takes no more for now.</returns>
    private bool WriteChain()
    {
        Libc.iovec* vectors = stackalloc Libc.iovec[MaxVectors];
        ulong length = _txChain!.ReadableLength;
        while (_txDone < length && _output is { } output && !_outputEnded)
        {
            int count = _txChain.SliceReadable(_txDone, length - _txDone, new Span<Libc.iovec>(vectors, MaxVectors));
            PortResult result = output.Write(vectors, count, out ulong moved);
            _txDone += moved;
            _counters.OutputBytes += (long)moved;
            if (result == PortResult.WouldBlock)
            {
                return false;
            }

            _outputEnded = result == PortResult.Ended;
        }

        // Without anybody who reads it, output is lost, as on a serial line.
        _counters.DiscardedBytes += (long)(length - _txDone);
        _txBusy = false;
        _tx!.PushUsed(_txChain.Head, 0);
        return true;
    }

    /// <summary>Reads input into the guest's buffers.</summary>
    /// <returns>True when the turn's budget ended it.</returns>
    private bool Input()
    {
        if (_input is not { } input || _inputEnded)
        {
            return false;
        }

        if (!_inputReady)
        {
            // After a reset, or before the first buffer, nothing watches it.
            WatchInput(true);
            return false;
        }

        Libc.iovec* vectors = stackalloc Libc.iovec[MaxVectors];
        _rx!.DisableNotifications();
        for (int i = 0; i < TurnBudget; i++)
        {
            if (_rx.Pending() == 0 && (_rx.IsBroken || !_rx.EnableNotifications()))
            {
                return false;
            }

            if (!_rx.TryPop(_rxChain!))
            {
                return false;
            }

            int count = _rxChain!.SliceWritable(0, _rxChain.WritableLength, new Span<Libc.iovec>(vectors, MaxVectors));
            if (_rxChain.WritableLength == 0)
            {
                _ = _rx.Break("a receive buffer without room (5.3.6.1)");
                return false;
            }

            PortResult result = input.Read(vectors, count, out ulong moved);
            if (result == PortResult.Done)
            {
                _rx.PushUsed(_rxChain.Head, (uint)Math.Min(moved, uint.MaxValue));
                _counters.InputBytes += (long)moved;
                continue;
            }

            _rx.UndoPop();
            _inputEnded = result == PortResult.Ended;
            _inputReady = false;
            WatchInput(!_inputEnded);
            return _inputReady;
        }

        return true;
    }

    private void WatchInput(bool watch)
    {
        if (_input is not { } input || watch == _inputWatched)
        {
            return;
        }

        // A regular file cannot be watched (epoll_ctl(2): EPERM): it is always ready.
        _inputWatched = watch && TryWatch(input.Fd, Libc.EPOLLIN);
        _inputReady |= watch && !_inputWatched;
        if (!watch)
        {
            _activation!.Loop.Remove(input.Fd);
        }
    }

    private void WatchOutput(bool watch)
    {
        if (_output is not { } output || watch == _outputWatched)
        {
            return;
        }

        _outputWatched = watch && TryWatch(output.Fd, Libc.EPOLLOUT);
        if (!watch)
        {
            _activation!.Loop.Remove(output.Fd);
        }
    }

    private bool TryWatch(SafeFd fd, uint events)
    {
        try
        {
            _activation!.Loop.Add(fd, events, this);
            return true;
        }
        catch (LinuxException e) when (e.Errno == Errno.EPERM)
        {
            return false;
        }
    }
}
