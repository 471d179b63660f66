using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.Proxies;

namespace MicroVm.Sandbox.Streams;

/// <summary>
/// Copies one direction of a container's streams on a thread of its own, through one buffer: a slow reader stops only its
/// own stream, and back-pressure goes to the writer. Descriptors are borrowed and may be non-blocking.
/// </summary>
internal sealed unsafe class StreamPump : IDisposable
{
    private const int BufferSize = 64 * 1024;

    // More than all buffers can hold: a guest that sends more is inventing it.
    private const long MaxAfterEnd = 64L << 20;
    private readonly SafeFd _from;
    private readonly SafeFd _to;
    private readonly bool _toGuest;
    private readonly Action? _ended;
    private readonly EventFd _stop = new();
    private readonly Thread _thread;
    private long _progress = Environment.TickCount64;
    private long _copied;
    private volatile bool _writing;
    private bool _disposed;

    private StreamPump(SafeFd from, SafeFd to, bool toGuest, string name, Action? ended)
    {
        _from = from;
        _to = to;
        _toGuest = toGuest;
        _ended = ended;
        _thread = new Thread(Run, 256 << 10) { IsBackground = true, Name = name };
    }

    /// <summary>Copies from the host to the guest. The host's end of file is passed on; a guest that closed ends the copying.</summary>
    /// <param name="host">Source.</param>
    /// <param name="guest">Target, whose write side is shut down at the end.</param>
    /// <param name="ended">Called on the copying thread once nothing more is copied.</param>
    internal static StreamPump ToGuest(SafeFd host, SafeFd guest, Action? ended = null) => new StreamPump(host, guest, true, "stdin", ended).Start();

    /// <summary>Copies from the guest to the host. A host reader that went away is passed on by closing the guest's stream.</summary>
    /// <param name="guest">Source, which is shut down at the end.</param>
    /// <param name="host">Target.</param>
    /// <param name="name">Of the thread.</param>
    /// <param name="ended">Called on the copying thread once nothing more is copied.</param>
    internal static StreamPump FromGuest(SafeFd guest, SafeFd host, string name, Action? ended = null) =>
        new StreamPump(guest, host, false, name, ended).Start();

    /// <summary>
    /// Waits until everything was copied. Gives up when the guest sends nothing for <paramref name="quiet"/> and does not
    /// end the stream either, or sends more than an ended process can have left; while the host's reader is slow it waits on.
    /// </summary>
    /// <returns>False when it gave up.</returns>
    internal bool Drain(TimeSpan quiet)
    {
        Interlocked.Exchange(ref _progress, Environment.TickCount64);
        long most = Interlocked.Read(ref _copied) + MaxAfterEnd;
        while (!_thread.Join(TimeSpan.FromMilliseconds(500)))
        {
            if (Interlocked.Read(ref _copied) > most
                || (!_writing && Environment.TickCount64 - Interlocked.Read(ref _progress) > quiet.TotalMilliseconds))
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>
    /// Waits until everything was copied, as long as the copying goes on: gives up when the guest sends nothing for <paramref name="quiet"/>,
    /// when the host's reader takes nothing for <paramref name="blocked"/>, or when more comes than an ended process can have left.
    /// </summary>
    /// <returns>False when it gave up.</returns>
    internal bool Settle(TimeSpan quiet, TimeSpan blocked)
    {
        Interlocked.Exchange(ref _progress, Environment.TickCount64);
        long most = Interlocked.Read(ref _copied) + MaxAfterEnd;
        while (!_thread.Join(TimeSpan.FromMilliseconds(20)))
        {
            if (Interlocked.Read(ref _copied) > most
                || Environment.TickCount64 - Interlocked.Read(ref _progress) > (_writing ? blocked : quiet).TotalMilliseconds)
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>Ends the copying; what was read is written first.</summary>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        _stop.Signal();

        // A blocking write to a host stream cannot be called back; the thread then ends with the process.
        if (_thread.Join(TimeSpan.FromMilliseconds(200)))
        {
            _stop.Dispose();
        }
    }

    private StreamPump Start()
    {
        _thread.Start();
        return this;
    }

    private void Run()
    {
        GuestThread.Begin();
        try
        {
            Copy();
        }
        catch (ObjectDisposedException)
        {
            // Disposed while a write to a host stream was blocked: there is nowhere to copy to any more.
        }
    }

    private void Copy()
    {
        byte[] buffer = GC.AllocateUninitializedArray<byte>(BufferSize, pinned: true);
        fixed (byte* p = buffer)
        {
            while (WaitReadable())
            {
                nint n = Libc.read(_from.Value, p, BufferSize);
                if (n < 0 && Check.LastErrno is Errno.EINTR or Errno.EAGAIN)
                {
                    continue;
                }

                // EIO: a terminal or pseudo-terminal that hung up; ECONNRESET: a guest's stream that broke off.
                if (n <= 0 || !WriteAll(p, (int)n))
                {
                    break;
                }

                Interlocked.Exchange(ref _progress, Environment.TickCount64);
                Interlocked.Add(ref _copied, n);
            }
        }

        _ = Libc.shutdown(_toGuest ? _to.Value : _from.Value, _toGuest ? Libc.SHUT_WR : Libc.SHUT_RDWR);
        _ended?.Invoke();
    }

    private bool WaitReadable()
    {
        Libc.pollfd* fds = stackalloc Libc.pollfd[3];
        fds[0] = new Libc.pollfd { fd = _from.Value, events = Libc.POLLIN };
        fds[1] = new Libc.pollfd { fd = _stop.Fd.Value, events = Libc.POLLIN };

        // A guest that closed its end (POLLHUP, always reported) reads no more: what the host still holds stays there.
        fds[2] = new Libc.pollfd { fd = _toGuest ? _to.Value : -1, events = 0 };
        while (Check.Retry(Libc.poll(fds, 3, -1)))
        {
        }

        return fds[1].revents == 0 && fds[2].revents == 0;
    }

    private bool WriteAll(byte* p, int length)
    {
        Libc.pollfd* fds = stackalloc Libc.pollfd[2];
        fds[0] = new Libc.pollfd { fd = _to.Value, events = Libc.POLLOUT };
        fds[1] = new Libc.pollfd { fd = _stop.Fd.Value, events = Libc.POLLIN };
        _writing = !_toGuest;
        while (length > 0)
        {
            nint n = Libc.write(_to.Value, p, (nuint)length);
            if (n >= 0)
            {
                p += n;
                length -= (int)n;
                continue;
            }

            Errno errno = Check.LastErrno;
            if (errno == Errno.EAGAIN)
            {
                _ = Libc.poll(fds, 2, -1);
                if (fds[1].revents != 0)
                {
                    break;
                }
            }
            else if (errno != Errno.EINTR)
            {
                break;
            }
        }

        _writing = false;
        return length == 0;
    }
}
