using System.Buffers.Binary;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Names;

namespace MicroVm.Agent.Names;

/// <summary>A TCP connection of a process that asks for names: one question at a time, each after its length (RFC 1035, section 4.2.2).</summary>
internal sealed unsafe class NameConnection : IEventHandler, IDisposable
{
    private const int LengthSize = 2, FirstBuffer = 512;
    private readonly NameRelay _relay;
    private readonly NameEndpoint _endpoint;
    private readonly EventLoop _loop;
    private readonly SafeFd _socket;

    // The question on its way in, then the answer on its way out.
    private byte[] _buffer = new byte[FirstBuffer];
    private int _start;
    private int _end;
    private State _state = State.Reading;

    /// <summary>Starts to read.</summary>
    internal NameConnection(NameRelay relay, NameEndpoint endpoint, EventLoop loop, SafeFd socket)
    {
        (_relay, _endpoint, _loop, _socket) = (relay, endpoint, loop, socket);
        loop.Add(socket, Libc.EPOLLIN, this);
    }

    private enum State
    {
        Reading,
        Waiting,
        Writing,
        Closed,
    }

    /// <summary>Sends the answer; an empty one closes the connection.</summary>
    internal void Answer(ReadOnlySpan<byte> message)
    {
        if (_state != State.Waiting)
        {
            return;
        }

        if (message.IsEmpty)
        {
            Dispose();
            return;
        }

        Fit(LengthSize + message.Length);
        BinaryPrimitives.WriteUInt16BigEndian(_buffer, (ushort)message.Length);
        message.CopyTo(_buffer.AsSpan(LengthSize));
        (_start, _end, _state) = (0, LengthSize + message.Length, State.Writing);
        _loop.Modify(_socket, Libc.EPOLLOUT);
    }

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        if ((events & (Libc.EPOLLHUP | Libc.EPOLLERR)) != 0)
        {
            Dispose();
        }
        else if (_state == State.Reading)
        {
            Read();
        }
        else if (_state == State.Writing)
        {
            Write();
        }
    }

    public void Dispose()
    {
        if (_state != State.Closed)
        {
            _state = State.Closed;
            _loop.Remove(_socket);
            _socket.Dispose();
            _relay.Remove(this);
        }
    }

    private void Read()
    {
        // No byte more than the question has: the next one waits in the socket.
        int wanted = _end < LengthSize ? LengthSize : LengthSize + BinaryPrimitives.ReadUInt16BigEndian(_buffer);
        Fit(wanted);
        fixed (byte* p = _buffer)
        {
            nint n = Libc.recv(_socket.Value, p + _end, (nuint)(wanted - _end), Libc.MSG_DONTWAIT);
            if (n < 0 && Check.LastErrno is Errno.EAGAIN or Errno.EINTR)
            {
                return;
            }

            if (n <= 0)
            {
                Dispose();
                return;
            }

            _end += (int)n;
        }

        if (_end < LengthSize)
        {
            return;
        }

        int length = BinaryPrimitives.ReadUInt16BigEndian(_buffer);
        if (length == 0)
        {
            Dispose();
        }
        else if (_end == LengthSize + length)
        {
            _state = State.Waiting;
            _loop.Modify(_socket, 0);
            if (!_relay.TryAsk(_endpoint, NameTransport.Stream, default, this, _buffer.AsSpan(LengthSize, length)))
            {
                Dispose();
            }
        }
    }

    private void Fit(int length)
    {
        if (_buffer.Length < length)
        {
            Array.Resize(ref _buffer, length);
        }
    }

    private void Write()
    {
        fixed (byte* p = _buffer)
        {
            nint n = Libc.send(_socket.Value, p + _start, (nuint)(_end - _start), Libc.MSG_DONTWAIT | Libc.MSG_NOSIGNAL);
            if (n < 0 && Check.LastErrno is Errno.EAGAIN or Errno.EINTR)
            {
                return;
            }

            if (n < 0)
            {
                Dispose();
                return;
            }

            _start += (int)n;
        }

        if (_start == _end)
        {
            (_start, _end, _state) = (0, 0, State.Reading);
            _loop.Modify(_socket, Libc.EPOLLIN);
        }
    }
}
