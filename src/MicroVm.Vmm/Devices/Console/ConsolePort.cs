using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.HostFiles;

namespace MicroVm.Vmm.Devices.Console;

/// <summary>How a transfer on a <see cref="ConsolePort"/> went.</summary>
internal enum PortResult
{
    /// <summary>Bytes were moved.</summary>
    Done,

    /// <summary>Nothing can be moved now: wait for readiness.</summary>
    WouldBlock,

    /// <summary>Nothing will be moved any more: end of file, hang-up or an error.</summary>
    Ended,
}

/// <summary>
/// A descriptor of the host that is read or written without ever blocking and without touching its O_NONBLOCK flag, which
/// belongs to a file description that other processes may share (a shell's terminal). Owns its descriptors.
/// </summary>
/// <remarks>
/// Sockets are asked call by call (MSG_DONTWAIT). Pipes and terminals are opened once more through /proc/self/fd: a
/// description of our own, non-blocking. What can be neither (files, pty masters) is polled first; a regular file never
/// blocks, and of a pty master few bytes are asked for at a time.
/// </remarks>
internal sealed unsafe class ConsolePort : IDisposable
{
    private const int MaxVectors = 16;

    // A pty master reports room without saying how much; a write of no more than this has always fitted.
    private const ulong CarefulBytes = 64;
    private readonly SafeFd _given;
    private readonly bool _isSocket;
    private readonly bool _isNonBlocking;

    /// <summary>Takes over <paramref name="fd"/>.</summary>
    /// <param name="fd">A descriptor open for the direction.</param>
    /// <param name="output">It is written to; else read.</param>
    public ConsolePort(SafeFd fd, bool output)
    {
        _given = fd;
        Fd = fd;
        IsTerminal = Libc.isatty(fd.Value) == 1;
        int type;
        uint length = sizeof(int);
        if (Libc.getsockopt(fd.Value, Libc.SOL_SOCKET, Libc.SO_TYPE, &type, &length) == 0)
        {
            // Watched on its own: a socket that serves both directions is given twice.
            _isSocket = true;
            Fd = fd.Duplicate();
        }
        else if (CanReopen(fd))
        {
            using SafeFd procSelfFd = ProcFd.Open();
            byte* link = stackalloc byte[ProcFd.NameLength];
            ProcFd.Format(fd.Value, link);
            int own = Libc.openat(
                procSelfFd.Value,
                link,
                (output ? Libc.O_WRONLY : Libc.O_RDONLY) | Libc.O_NONBLOCK | Libc.O_NOCTTY | Libc.O_CLOEXEC, 0);
            if (own >= 0)
            {
                Fd = new SafeFd(own);
                _isNonBlocking = true;
            }
        }
    }

    /// <summary>What to watch for readiness.</summary>
    public SafeFd Fd { get; }

    /// <summary>It is a terminal (or a pty master).</summary>
    public bool IsTerminal { get; }

    /// <summary>The terminal's size; false when it is none.</summary>
    public bool TryGetSize(out ushort columns, out ushort rows)
    {
        Libc.winsize size = default;
        bool ok = IsTerminal && Libc.ioctl(Fd.Value, Libc.TIOCGWINSZ, &size) == 0;
        columns = size.ws_col;
        rows = size.ws_row;
        return ok;
    }

    /// <summary>Reads into <paramref name="vectors"/>.</summary>
    public PortResult Read(Libc.iovec* vectors, int count, out ulong moved) => Transfer(vectors, count, write: false, out moved);

    /// <summary>Writes from <paramref name="vectors"/>.</summary>
    public PortResult Write(Libc.iovec* vectors, int count, out ulong moved) => Transfer(vectors, count, write: true, out moved);

    /// <inheritdoc/>
    public void Dispose()
    {
        Fd.Dispose();
        _given.Dispose();
    }

    // Opening a pty master's file makes another pty: that is not for it.
    private static bool CanReopen(SafeFd fd)
    {
        Libc.statx_t status;
        byte empty = 0;
        if (Libc.statx(fd.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_BASIC_STATS, &status) != 0)
        {
            return false;
        }

        uint type = status.stx_mode & Libc.S_IFMT;
        bool ptyMaster = status.stx_rdev_major == 5 && status.stx_rdev_minor == 2;
        return type == Libc.S_IFIFO || (type == Libc.S_IFCHR && Libc.isatty(fd.Value) == 1 && !ptyMaster);
    }

    private PortResult Transfer(Libc.iovec* vectors, int count, bool write, out ulong moved)
    {
        moved = 0;
        if (!_isSocket && !_isNonBlocking && !IsReady(write))
        {
            return PortResult.WouldBlock;
        }

        Libc.iovec careful;
        if (IsTerminal && !_isNonBlocking && write && count != 0)
        {
            careful = new Libc.iovec
            {
                iov_base = vectors[0].iov_base,
                iov_len = (nuint)Math.Min(vectors[0].iov_len, CarefulBytes),
            };
            vectors = &careful;
            count = 1;
        }

        nint n;
        do
        {
            n = _isSocket ? Message(vectors, count, write)
                : write ? Libc.writev(Fd.Value, vectors, Math.Min(count, MaxVectors))
                : Libc.readv(Fd.Value, vectors, Math.Min(count, MaxVectors));
        }
        while (Check.Retry(n));
        if (n > 0)
        {
            moved = (ulong)n;
            return PortResult.Done;
        }

        return n < 0 && Check.LastErrno == Errno.EAGAIN ? PortResult.WouldBlock : PortResult.Ended;
    }

    private nint Message(Libc.iovec* vectors, int count, bool write)
    {
        Libc.msghdr message = new() { msg_iov = vectors, msg_iovlen = (nuint)count };
        return write
            ? Libc.sendmsg(Fd.Value, &message, Libc.MSG_DONTWAIT | Libc.MSG_NOSIGNAL)
            : Libc.recvmsg(Fd.Value, &message, Libc.MSG_DONTWAIT);
    }

    private bool IsReady(bool write)
    {
        Libc.pollfd poll = new() { fd = Fd.Value, events = write ? Libc.POLLOUT : Libc.POLLIN };
        return Libc.poll(&poll, 1, 0) > 0;
    }
}
