using System.Globalization;
using MicroVm.Linux.Native;

namespace MicroVm.Linux.Netlink;

/// <summary>
/// A network namespace of the host, held by a descriptor, with a netlink socket there. A thread that entered one is not used again:
/// work in it is done on a thread of its own; the socket is the namespace's wherever it is used.
/// </summary>
public sealed class NetworkNamespace : IDisposable
{
    private readonly SafeFd _fd;
    private readonly Lock _lock = new();
    private NetlinkSocket? _netlink;

    private NetworkNamespace(SafeFd fd, NetlinkSocket netlink) => (_fd, _netlink) = (fd, netlink);

    /// <summary>Opens the namespace at <paramref name="path"/>: a bind mount or /proc/PID/ns/net.</summary>
    /// <exception cref="LinuxException">There is none.</exception>
    public static NetworkNamespace Open(string path)
    {
        SafeFd file = OpenFile(path);
        try
        {
            // Anything but a network namespace is refused by setns itself.
            return OwnThread.Run(() =>
            {
                Enter(file);
                return new NetworkNamespace(file, new NetlinkSocket());
            });
        }
        catch (LinuxException e)
        {
            file.Dispose();
            throw new LinuxException(e.Errno, "network namespace", path);
        }
    }

    /// <summary>Makes a new namespace, which lives as long as this object or something else in it.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static NetworkNamespace Create() => OwnThread.Run(() =>
    {
        Check.Result(Libc.unshare(Libc.CLONE_NEWNET), "unshare(CLONE_NEWNET)");
        int tid = Libc.gettid();
        string path = string.Create(CultureInfo.InvariantCulture, $"/proc/self/task/{tid}/ns/net");
        SafeFd file = OpenFile(path);
        try
        {
            return new NetworkNamespace(file, new NetlinkSocket());
        }
        catch
        {
            file.Dispose();
            throw;
        }
    });

    /// <summary>Moves the calling thread, for good, into the namespace at <paramref name="path"/>.</summary>
    /// <exception cref="LinuxException">There is none, or it cannot be entered.</exception>
    public static void Join(string path)
    {
        using SafeFd file = OpenFile(path);
        Enter(file);
    }

    /// <summary>Whether it is the one that the calling thread is in.</summary>
    /// <exception cref="LinuxException">/proc is not there.</exception>
    public bool IsCurrent()
    {
        using SafeFd own = OpenFile("/proc/thread-self/ns/net");
        return FileIdentity.Of(own) == FileIdentity.Of(_fd);
    }

    /// <summary>The namespace's descriptor.</summary>
    public SafeFd Fd => _fd;

    /// <summary>Moves the calling thread into the namespace, for good.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void Enter() => Enter(_fd);

    /// <summary>Does something in the namespace.</summary>
    /// <exception cref="LinuxException">It cannot be entered; or what <paramref name="action"/> throws.</exception>
    public T Run<T>(Func<T> action) => OwnThread.Run(() =>
    {
        Enter();
        return action();
    });

    /// <summary>Asks and changes what netlink knows of the namespace, on the calling thread, which does not enter it. One at a time.</summary>
    /// <exception cref="LinuxException">What <paramref name="action"/> throws.</exception>
    public T Netlink<T>(Func<NetlinkSocket, T> action)
    {
        ArgumentNullException.ThrowIfNull(action);
        lock (_lock)
        {
            try
            {
                return action(_netlink ??= Run(() => new NetlinkSocket()));
            }
            catch (LinuxException e) when (e.Operation == NetlinkSocket.Failure)
            {
                // The rest of an answer may still come. The next one gets a socket without.
                _netlink?.Dispose();
                _netlink = null;
                throw;
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _netlink?.Dispose();
        _fd.Dispose();
    }

    private static void Enter(SafeFd file) => Check.Result(Libc.setns(file.Value, Libc.CLONE_NEWNET), "setns(CLONE_NEWNET)");

    private static SafeFd OpenFile(string path) => SafeFd.From(Libc.open(path, Libc.O_RDONLY | Libc.O_CLOEXEC, 0), "open", path);
}
