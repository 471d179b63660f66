using System.Globalization;
using System.Text;
using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>Unix stream sockets (unix(7)); every descriptor is close-on-exec and owned by the caller.</summary>
public static unsafe class UnixSocket
{
    /// <summary>Longest path that a Unix socket's address holds, in bytes.</summary>
    public const int MaxPathBytes = 107;

    /// <summary>Connects to the listener at <paramref name="path"/>.</summary>
    /// <exception cref="LinuxException">Nobody listens there, or the name is too long (ENAMETOOLONG).</exception>
    public static SafeFd Connect(string path)
    {
        Libc.sockaddr_un address;
        uint length = Fill(&address, path, out SafeFd? folder);
        using SafeFd? held = folder;
        SafeFd fd = SafeFd.From(Libc.socket(Libc.AF_UNIX, Libc.SOCK_STREAM | Libc.SOCK_CLOEXEC, 0), "socket(AF_UNIX)");
        try
        {
            int result;
            do
            {
                result = Libc.connect(fd.Value, &address, length);
            }
            while (Check.Retry(result));
            Check.Result(result, "connect", path);
            return fd;
        }
        catch
        {
            fd.Dispose();
            throw;
        }
    }

    /// <summary>Connects without waiting and without exceptions, for servers that answer a failure in their own way.</summary>
    /// <param name="path">UTF-8 without a terminating zero.</param>
    /// <param name="errno">
    /// Why not: ENOENT and ECONNREFUSED when nobody listens, EAGAIN when the listener's backlog is full. A Unix socket
    /// connects at once or fails; there is no EINPROGRESS.
    /// </param>
    /// <returns>A non-blocking socket; null when the connection could not be made.</returns>
    public static SafeFd? TryConnect(ReadOnlySpan<byte> path, out Errno errno)
    {
        if (path.Length is 0 or > MaxPathBytes)
        {
            errno = Errno.ENAMETOOLONG;
            return null;
        }

        Libc.sockaddr_un address = default;
        address.sun_family = Libc.AF_UNIX;
        path.CopyTo(new Span<byte>(address.sun_path, MaxPathBytes));
        int fd = Libc.socket(Libc.AF_UNIX, Libc.SOCK_STREAM | Libc.SOCK_CLOEXEC | Libc.SOCK_NONBLOCK, 0);
        int result = fd;
        if (fd >= 0)
        {
            do
            {
                result = Libc.connect(fd, &address, (uint)(sizeof(ushort) + path.Length + 1));
            }
            while (Check.Retry(result));
        }

        errno = result < 0 ? Check.LastErrno : Errno.OK;
        if (result < 0 && fd >= 0)
        {
            _ = Libc.close(fd);
        }

        return result < 0 ? null : new SafeFd(fd);
    }

    /// <summary>
    /// Whether a stream socket listens at a path, without a connection that its owner would see: connect(2) of a socket that is
    /// connected already is refused only once a listener was found.
    /// </summary>
    /// <param name="path">UTF-8 without a terminating zero.</param>
    /// <exception cref="LinuxException">No descriptor is free.</exception>
    public static bool Listens(ReadOnlySpan<byte> path)
    {
        Libc.sockaddr_un address = default;
        address.sun_family = Libc.AF_UNIX;
        if (path.Length is 0 or > MaxPathBytes)
        {
            return false;
        }

        path.CopyTo(new Span<byte>(address.sun_path, MaxPathBytes));
        (SafeFd probe, SafeFd end) = Pair(nonBlocking: true);
        using SafeFd both = probe, other = end;
        return Libc.connect(probe.Value, &address, (uint)(sizeof(ushort) + path.Length + 1)) < 0 && Check.LastErrno is Errno.EISCONN or Errno.EAGAIN;
    }

    /// <summary>
    /// Binds a listener, non-blocking and for this user only, at <paramref name="path"/>. A socket there that nobody
    /// listens on any more is replaced; anything else there is left alone.
    /// </summary>
    /// <exception cref="LinuxException">The path exists or cannot be made, or its name is too long (ENAMETOOLONG).</exception>
    public static SafeFd Listen(string path)
    {
        Libc.sockaddr_un address;
        uint length = Fill(&address, path, out SafeFd? folder);
        using SafeFd? held = folder;
        SafeFd fd = SafeFd.From(
            Libc.socket(Libc.AF_UNIX, Libc.SOCK_STREAM | Libc.SOCK_CLOEXEC | Libc.SOCK_NONBLOCK, 0), "socket(AF_UNIX)");
        try
        {
            if (Libc.bind(fd.Value, &address, length) < 0)
            {
                Errno errno = Check.LastErrno;
                if (errno != Errno.EADDRINUSE || !IsStale(&address, length))
                {
                    throw new LinuxException(errno, "bind", path);
                }

                File.Delete(path);
                Check.Result(Libc.bind(fd.Value, &address, length), "bind", path);
            }

            // Nobody can connect before listen, so there is no moment at which others could.
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            Check.Result(Libc.listen(fd.Value, Libc.SOMAXCONN), "listen", path);
            return fd;
        }
        catch
        {
            fd.Dispose();
            throw;
        }
    }

    /// <summary>Takes a waiting connection, non-blocking; null when there is none.</summary>
    /// <exception cref="LinuxException">The listener is broken, or no descriptor is free.</exception>
    public static SafeFd? Accept(SafeFd listener) => ConnectionAcceptor.Accept(listener, null, null, "accept4");

    /// <summary>Takes a waiting connection, non-blocking, without exceptions.</summary>
    /// <returns>Null when none waits (EAGAIN) or none can be taken now (EMFILE, ENFILE, ENOMEM...).</returns>
    public static SafeFd? TryAccept(SafeFd listener, out Errno errno) => ConnectionAcceptor.TryAccept(listener, null, null, out errno);

    /// <summary>A connected pair.</summary>
    /// <exception cref="LinuxException">No descriptor is free.</exception>
    public static (SafeFd A, SafeFd B) Pair(bool nonBlocking = false, int kind = Libc.SOCK_STREAM)
    {
        int* fds = stackalloc int[2];
        int type = kind | Libc.SOCK_CLOEXEC | (nonBlocking ? Libc.SOCK_NONBLOCK : 0);
        Check.Result(Libc.socketpair(Libc.AF_UNIX, type, 0, fds), "socketpair");
        return (new SafeFd(fds[0]), new SafeFd(fds[1]));
    }

    private static bool IsStale(Libc.sockaddr_un* address, uint length)
    {
        // Connecting to a file that is no socket is refused, too (unix(7)).
        Libc.statx_t status;
        if (Libc.statx(Libc.AT_FDCWD, address->sun_path, Libc.AT_SYMLINK_NOFOLLOW, Libc.STATX_TYPE, &status) != 0
            || (status.stx_mode & Libc.S_IFMT) != Libc.S_IFSOCK)
        {
            return false;
        }

        using SafeFd probe = SafeFd.From(
            Libc.socket(Libc.AF_UNIX, Libc.SOCK_STREAM | Libc.SOCK_CLOEXEC | Libc.SOCK_NONBLOCK, 0), "socket(AF_UNIX)");
        return Libc.connect(probe.Value, address, length) < 0 && Check.LastErrno == Errno.ECONNREFUSED;
    }

    /// <summary>
    /// A path that an address cannot hold (the folders of Docker's containers are 95 bytes long) leads through a descriptor of its
    /// folder, which must stay open as long as the address is used.
    /// </summary>
    private static uint Fill(Libc.sockaddr_un* address, string path, out SafeFd? folder)
    {
        ArgumentNullException.ThrowIfNull(path);
        folder = null;
        string given = path;
        if (Encoding.UTF8.GetByteCount(path) > MaxPathBytes)
        {
            string parent = Path.GetDirectoryName(Path.GetFullPath(path))!;
            folder = SafeFd.From(Libc.open(parent, Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", parent);
            path = string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{folder.Value}/{Path.GetFileName(path)}");
            if (Encoding.UTF8.GetByteCount(path) > MaxPathBytes)
            {
                folder.Dispose();
                throw new LinuxException(Errno.ENAMETOOLONG, "socket address", given);
            }
        }

        *address = default;
        address->sun_family = Libc.AF_UNIX;
        int n = Encoding.UTF8.GetBytes(path, new Span<byte>(address->sun_path, MaxPathBytes));
        return (uint)(sizeof(ushort) + n + 1);
    }
}
