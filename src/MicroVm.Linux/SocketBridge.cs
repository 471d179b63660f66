using System.Runtime.InteropServices;
using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>
/// Two stream sockets joined on an <see cref="EventLoop"/>: what comes from one goes to the other, in both directions, with one
/// buffer each, so that a slow reader stops its writer. An end of file is passed on; a socket that breaks ends both,
/// and so does one that sends descriptors (SCM_RIGHTS), which cannot be passed on. Owns both.
/// </summary>
public sealed unsafe class SocketBridge : IEventHandler, IDisposable
{
    private const int BufferSize = 64 << 10;

    // How many buffers one wake-up moves before other descriptors get their turn.
    private const int Burst = 4;
    private readonly EventLoop _loop;
    private readonly Action _ended;
    private readonly Direction _forth;
    private readonly Direction _back;
    private readonly SafeFd _a;
    private readonly SafeFd _b;
    private bool _connecting;
    private bool _disposed;

    /// <summary>Joins two sockets; on the loop's thread.</summary>
    /// <param name="loop">The loop.</param>
    /// <param name="a">Non-blocking and connected.</param>
    /// <param name="b">Non-blocking; its connection may still be on its way.</param>
    /// <param name="ended">Called once, when both are closed.</param>
    /// <param name="greeting">Sent to <paramref name="b"/> before what comes from <paramref name="a"/>; at most 64 KiB.</param>
    /// <exception cref="LinuxException">A socket cannot be watched; both are closed, and <paramref name="ended"/> was called.</exception>
    public SocketBridge(EventLoop loop, SafeFd a, SafeFd b, Action ended, ReadOnlySpan<byte> greeting = default)
    {
        ArgumentNullException.ThrowIfNull(loop);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(greeting.Length, BufferSize);
        (_loop, _a, _b, _ended) = (loop, a, b, ended);
        (_forth, _back) = (new Direction(a, b), new Direction(b, a));
        _forth.Begin(greeting);
        try
        {
            loop.Add(a, 0, this);

            // Writable: connected, or failed.
            loop.Add(b, Libc.EPOLLOUT, this);
            _connecting = true;
        }
        catch (LinuxException)
        {
            Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        _connecting = _connecting && !ReferenceEquals(fd, _b);
        if (_connecting)
        {
            // The side that waits hung up.
            if ((events & (Libc.EPOLLHUP | Libc.EPOLLERR)) != 0)
            {
                Dispose();
            }

            return;
        }

        if ((events & (Libc.EPOLLHUP | Libc.EPOLLERR)) != 0)
        {
            // It takes nothing more; what it sent is still to be read, as fast as the other takes it. Its event would come for ever.
            bool first = ReferenceEquals(fd, _a);
            (first ? _back : _forth).Abandon();
            (first ? _forth : _back).SourceHungUp = true;
            _loop.Remove(fd);
        }

        if (!_forth.Move() || !_back.Move() || (_forth.IsOver && _back.IsOver))
        {
            Dispose();
            return;
        }

        Watch(_a, _forth, _back);
        Watch(_b, _back, _forth);
    }

    private void Watch(SafeFd fd, Direction from, Direction to)
    {
        if (!from.SourceHungUp)
        {
            _loop.Modify(fd, (from.Reads ? Libc.EPOLLIN : 0) | (to.Writes ? Libc.EPOLLOUT : 0));
        }
    }

    /// <summary>Closes both; what was not moved yet is lost.</summary>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        _loop.Remove(_a);
        _loop.Remove(_b);
        _a.Dispose();
        _b.Dispose();
        _forth.Free();
        _back.Free();
        _ended();
    }

    /// <summary>One direction.</summary>
    private sealed class Direction(SafeFd from, SafeFd to)
    {
        private byte* _buffer;
        private int _start;
        private int _end;
        private bool _sourceEnded;

        /// <summary>Everything was passed on, the end of file too.</summary>
        public bool IsOver { get; private set; }

        public bool Reads => !_sourceEnded && !IsOver && _start == _end;

        public bool Writes => _start < _end || (SourceHungUp && !IsOver);

        /// <summary>The source's events are not watched any more: what it has is read whenever the target takes more.</summary>
        public bool SourceHungUp { get; set; }

        /// <summary>Moves these bytes first.</summary>
        public void Begin(ReadOnlySpan<byte> bytes)
        {
            if (!bytes.IsEmpty)
            {
                _buffer = (byte*)NativeMemory.Alloc(BufferSize);
                bytes.CopyTo(new Span<byte>(_buffer, BufferSize));
                _end = bytes.Length;
            }
        }

        /// <summary>The target takes nothing more.</summary>
        public void Abandon() => (IsOver, _start, _end) = (true, 0, 0);

        public void Free()
        {
            NativeMemory.Free(_buffer);
            _buffer = null;
        }

        /// <summary>Moves what can be moved now; false when a socket is broken.</summary>
        public bool Move()
        {
            for (int i = 0; i < Burst && !IsOver; i++)
            {
                if (Reads && !Fill(out bool waits))
                {
                    return waits;
                }

                while (_start < _end)
                {
                    nint n = Libc.send(to.Value, _buffer + _start, (nuint)(_end - _start), Libc.MSG_NOSIGNAL);
                    if (n < 0)
                    {
                        return Check.LastErrno is Errno.EAGAIN or Errno.EINTR;
                    }

                    _start += (int)n;
                }

                if (_sourceEnded)
                {
                    IsOver = true;
                    _ = Libc.shutdown(to.Value, Libc.SHUT_WR);
                }
            }

            return true;
        }

        // False: nothing to write now, since there is nothing (waits) or the socket is broken.
        private bool Fill(out bool waits)
        {
            if (_buffer == null)
            {
                _buffer = (byte*)NativeMemory.Alloc(BufferSize);
            }

            Libc.iovec vector = new() { iov_base = _buffer, iov_len = BufferSize };
            Libc.msghdr message = new() { msg_iov = &vector, msg_iovlen = 1 };
            nint n = Libc.recvmsg(from.Value, &message, 0);
            waits = n < 0 && Check.LastErrno is (Errno.EAGAIN or Errno.EINTR);

            // Bytes whose descriptors stayed behind would mean something else to who gets them.
            if (n < 0 || (message.msg_flags & Libc.MSG_CTRUNC) != 0)
            {
                return false;
            }

            (_start, _end) = (0, (int)n);
            _sourceEnded = n == 0;
            return true;
        }
    }
}
