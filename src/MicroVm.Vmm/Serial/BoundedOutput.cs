using MicroVm.Bus.Counters;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Vmm.Serial;

/// <summary>
/// Writes bytes to a descriptor, a line at a time, without ever waiting for its reader: what does not fit into the
/// descriptor now is kept, up to a bound, and what does not fit there is dropped and counted. A regular file gets no more
/// than <see cref="FileCapacity"/>, for a guest writes without end if it likes. Any thread; owns the descriptor.
/// </summary>
/// <remarks>
/// The descriptor may be shared with other processes, so it is not switched to non-blocking. A pipe that poll(2) calls
/// writable takes PIPE_BUF bytes without blocking, and no more than that is written at once.
/// </remarks>
public sealed unsafe class BoundedOutput : IEventHandler, ICounterSource, IDisposable
{
    /// <summary>How many bytes are kept for a slow reader.</summary>
    public const int Capacity = 64 << 10;

    /// <summary>How many bytes a regular file is given, beside a line that says so.</summary>
    public const long FileCapacity = 16 << 20;

    private const int ChunkSize = 4096;
    private const int LongestLine = 1024;
    private readonly Lock _lock = new();
    private readonly SafeFd? _fd;
    private readonly EventLoop _loop;
    private readonly string _name;
    private readonly bool _isFile;
    private byte[] _buffer = new byte[LongestLine];
    private int _count;
    private int _sinceFlush;
    private bool _watching;
    private bool _failed;
    private long _written;
    private long _dropped;

    /// <summary>Takes over <paramref name="fd"/>; null discards everything. <paramref name="name"/> prefixes the counters.</summary>
    public BoundedOutput(SafeFd? fd, EventLoop loop, string name)
    {
        _fd = fd;
        _loop = loop;
        _name = name;
        _isFile = fd is not null && IsFile(fd);
    }

    /// <summary>Bytes that were dropped because the reader is too slow or gone.</summary>
    public long Dropped => Volatile.Read(ref _dropped);

    /// <summary>Adds a byte; a line end, or a long line, is written out.</summary>
    public void Write(byte value)
    {
        if (_fd is null)
        {
            return;
        }

        lock (_lock)
        {
            if (_count == _buffer.Length && !Grow())
            {
                _dropped++;
                return;
            }

            _buffer[_count++] = value;
            if (value == (byte)'\n' || ++_sinceFlush >= LongestLine)
            {
                FlushLocked();
            }
        }
    }

    /// <summary>Writes what can be written now, unfinished lines too.</summary>
    public void Flush()
    {
        lock (_lock)
        {
            FlushLocked();
        }
    }

    /// <inheritdoc/>
    public void CollectCounters(Action<string, long> add)
    {
        ArgumentNullException.ThrowIfNull(add);
        add(_name + ".bytes", Volatile.Read(ref _written));
        add(_name + ".dropped", Dropped);
    }

    /// <summary>Flushes and closes. The event loop must not be running on another thread any more.</summary>
    public void Dispose()
    {
        Flush();
        if (_fd is not null)
        {
            _loop.Remove(_fd);
            _fd.Dispose();
        }
    }

    void IEventHandler.OnReady(SafeFd fd, uint events)
    {
        lock (_lock)
        {
            FlushLocked();
            if (_count == 0 || _failed)
            {
                _loop.Remove(fd);
                _watching = false;
            }
        }
    }

    private static bool IsFile(SafeFd fd)
    {
        Libc.statx_t stat;
        byte empty = 0;
        return Libc.statx(fd.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_TYPE, &stat) == 0 && (stat.stx_mode & Libc.S_IFMT) == Libc.S_IFREG;
    }

    private bool Grow()
    {
        if (_buffer.Length >= Capacity)
        {
            return false;
        }

        Array.Resize(ref _buffer, Math.Min(_buffer.Length * 4, Capacity));
        return true;
    }

    private void FlushLocked()
    {
        _sinceFlush = 0;
        int done = 0;
        while (done < _count && !_failed)
        {
            if (_isFile && _written + done >= FileCapacity)
            {
                CloseFile();
                break;
            }

            if (!IsWritable())
            {
                Watch();
                break;
            }

            int n = WriteChunk(done);
            if (n < 0)
            {
                _failed = true;
            }

            done += Math.Max(n, 0);
        }

        _written += done;
        if (_failed)
        {
            _dropped += _count - done;
            done = _count;
        }

        _buffer.AsSpan(done, _count - done).CopyTo(_buffer);
        _count -= done;
    }

    private void CloseFile()
    {
        ReadOnlySpan<byte> notice = "\n[microvm-vmm: the guest wrote more than 16 MiB here; the rest is dropped]\n"u8;
        fixed (byte* p = notice)
        {
            _ = Libc.write(_fd!.Value, p, (nuint)notice.Length);
        }

        _failed = true;
    }

    private bool IsWritable()
    {
        Libc.pollfd p = new() { fd = _fd!.Value, events = Libc.POLLOUT };
        return Libc.poll(&p, 1, 0) > 0;
    }

    private int WriteChunk(int from)
    {
        fixed (byte* p = _buffer)
        {
            nint n = Libc.write(_fd!.Value, p + from, (nuint)Math.Min(_count - from, ChunkSize));
            return n >= 0 ? (int)n : Check.LastErrno is Errno.EINTR or Errno.EAGAIN ? 0 : -1;
        }
    }

    private void Watch()
    {
        if (_watching)
        {
            return;
        }

        _watching = true;
        _loop.Post(() =>
        {
            try
            {
                _loop.Add(_fd!, Libc.EPOLLOUT, this);
            }
            catch (LinuxException)
            {
                // Not a kind of file that can be waited for: the next line tries again.
                lock (_lock)
                {
                    _watching = false;
                }
            }
        });
    }
}
