using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Protocol.Names;

/// <summary>Takes the messages of a <see cref="NameChannel"/>, on its loop's thread.</summary>
public interface INameChannelOwner
{
    /// <summary>A whole message; the bytes are valid during the call.</summary>
    void OnMessage(NameFrame frame, ReadOnlySpan<byte> message);

    /// <summary>The other side is gone, or broke the protocol. No message follows.</summary>
    void OnClosed();
}

/// <summary>
/// A stream of <see cref="NameFrame"/>s between guest and host, on an event loop. What the other side does not read is kept up to
/// a bound, beyond which messages are refused: whoever asked asks again. Owns the descriptor.
/// </summary>
public sealed unsafe class NameChannel : IEventHandler, IDisposable
{
    private const int MaxPending = 256 << 10;

    // How many reads one wake-up makes before other descriptors get their turn.
    private const int Burst = 16;
    private readonly EventLoop _loop;
    private readonly SafeFd _stream;
    private readonly INameChannelOwner _owner;
    private readonly byte[] _input = new byte[NameFrame.MaxLength];
    private byte[] _output = [];
    private int _have;
    private int _start;
    private int _end;
    private bool _over;

    /// <summary>Starts to read.</summary>
    /// <param name="loop">The loop, on whose thread this and every other method is called.</param>
    /// <param name="stream">Non-blocking; taken over.</param>
    /// <param name="owner">Gets the messages.</param>
    public NameChannel(EventLoop loop, SafeFd stream, INameChannelOwner owner)
    {
        ArgumentNullException.ThrowIfNull(loop);
        (_loop, _stream, _owner) = (loop, stream, owner);
        loop.Add(stream, Libc.EPOLLIN, this);
    }

    /// <summary>Sends a message, whose length is the frame's.</summary>
    /// <returns>False when the other side reads too slowly: the message is not sent.</returns>
    public bool TrySend(NameFrame frame, ReadOnlySpan<byte> message)
    {
        int length = NameFrame.HeadLength + message.Length;
        if (_over || message.Length != frame.Length || _end - _start + length > MaxPending)
        {
            return false;
        }

        MakeRoom(length);
        frame.Write(_output.AsSpan(_end));
        message.CopyTo(_output.AsSpan(_end + NameFrame.HeadLength));
        bool waiting = _end > _start;
        _end += length;
        if (!waiting)
        {
            Flush(waiting: false);
        }

        return true;
    }

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        if ((events & Libc.EPOLLOUT) != 0)
        {
            Flush(waiting: true);
        }

        for (int i = 0; i < Burst && !_over && Read(); i++)
        {
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _over = true;
        if (!_stream.IsClosed)
        {
            _loop.Remove(_stream);
            _stream.Dispose();
        }
    }

    private bool Read()
    {
        fixed (byte* p = _input)
        {
            nint n = Libc.read(_stream.Value, p + _have, (nuint)(_input.Length - _have));
            if (n < 0 && Check.LastErrno is Errno.EAGAIN or Errno.EINTR)
            {
                return false;
            }

            if (n <= 0)
            {
                Close();
                return false;
            }

            _have += (int)n;
        }

        int at = 0;
        while (!_over && _have - at >= NameFrame.HeadLength)
        {
            NameFrame frame = NameFrame.Read(_input.AsSpan(at));
            if (_have - at < NameFrame.HeadLength + frame.Length)
            {
                break;
            }

            _owner.OnMessage(frame, _input.AsSpan(at + NameFrame.HeadLength, frame.Length));
            at += NameFrame.HeadLength + frame.Length;
        }

        _input.AsSpan(at, _have - at).CopyTo(_input);
        _have -= at;
        return true;
    }

    private void Flush(bool waiting)
    {
        fixed (byte* p = _output)
        {
            while (_start < _end && !_over)
            {
                nint n = Libc.write(_stream.Value, p + _start, (nuint)(_end - _start));
                if (n >= 0)
                {
                    _start += (int)n;
                }
                else if (Check.LastErrno == Errno.EAGAIN)
                {
                    if (!waiting)
                    {
                        _loop.Modify(_stream, Libc.EPOLLIN | Libc.EPOLLOUT);
                    }

                    return;
                }
                else if (Check.LastErrno != Errno.EINTR)
                {
                    Close();
                    return;
                }
            }
        }

        _start = _end = 0;
        if (waiting && !_over)
        {
            _loop.Modify(_stream, Libc.EPOLLIN);
        }
    }

    private void MakeRoom(int length)
    {
        int pending = _end - _start;
        if (_output.Length - _end >= length)
        {
            return;
        }

        byte[] room = _output.Length >= pending + length ? _output : new byte[Math.Min(MaxPending, Math.Max(pending + length, 2 * _output.Length))];
        _output.AsSpan(_start, pending).CopyTo(room);
        (_output, _start, _end) = (room, 0, pending);
    }

    private void Close()
    {
        if (!_over)
        {
            Dispose();
            _owner.OnClosed();
        }
    }
}
