using System.Globalization;
using MicroVm.Linux.Native;

namespace MicroVm.Linux.Netlink;

/// <summary>
/// A network namespace of the host, held by a descriptor. A thread that entered one is not used again: work in it is done on
/// a thread of its own.
/// </summary>
public sealed class NetworkNamespace : IDisposable
{
    private readonly SafeFd _fd;

    private NetworkNamespace(SafeFd fd) => _fd = fd;

    /// <summary>Opens the namespace at <paramref name="path"/>: a bind mount or /proc/PID/ns/net.</summary>
    /// <exception cref="LinuxException">There is none.</exception>
    public static NetworkNamespace Open(string path)
    {
        NetworkNamespace ns = new(OpenFile(path));
        try
        {
            // Anything but a network namespace is refused by setns itself.
            ns.Run(() => 0);
            return ns;
        }
        catch (LinuxException e)
        {
            ns.Dispose();
            throw new LinuxException(e.Errno, "network namespace", path);
        }
    }

    /// <summary>Makes a new namespace, which lives as long as this object or something else in it.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static NetworkNamespace Create() => new(OnThread(() =>
    {
        Check.Result(Libc.unshare(Libc.CLONE_NEWNET), "unshare(CLONE_NEWNET)");
        nint tid = Libc.syscall((nint)Libc.SYS_gettid, 0, 0, 0, 0, 0, 0);
        string path = string.Create(CultureInfo.InvariantCulture, $"/proc/self/task/{tid}/ns/net");
        return OpenFile(path);
    }));

    /// <summary>Moves the calling thread, for good, into the namespace at <paramref name="path"/>.</summary>
    /// <exception cref="LinuxException">There is none, or it cannot be entered.</exception>
    public static void Join(string path)
    {
        using NetworkNamespace ns = new(OpenFile(path));
        ns.Enter();
    }

    /// <summary>Whether it is the one that the calling thread is in.</summary>
    /// <exception cref="LinuxException">/proc is not there.</exception>
    public unsafe bool IsCurrent()
    {
        Libc.statx_t mine, its;
        byte empty = 0;
        using SafeFd own = OpenFile("/proc/thread-self/ns/net");
        Check.Result(Libc.statx(own.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_BASIC_STATS, &mine), "statx");
        Check.Result(Libc.statx(_fd.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_BASIC_STATS, &its), "statx");
        return mine.stx_ino == its.stx_ino && mine.stx_dev_major == its.stx_dev_major && mine.stx_dev_minor == its.stx_dev_minor;
    }

    /// <summary>Moves the calling thread into the namespace, for good.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void Enter() => Check.Result(Libc.setns(_fd.Value, Libc.CLONE_NEWNET), "setns(CLONE_NEWNET)");

    /// <summary>Does something in the namespace.</summary>
    /// <exception cref="LinuxException">It cannot be entered; or what <paramref name="action"/> throws.</exception>
    public T Run<T>(Func<T> action) => OnThread(() =>
    {
        Enter();
        return action();
    });

    /// <summary>Does something in the namespace, with a netlink socket there.</summary>
    /// <exception cref="LinuxException">It cannot be entered; or what <paramref name="action"/> throws.</exception>
    public T Run<T>(Func<NetlinkSocket, T> action) => Run(() =>
    {
        using NetlinkSocket socket = new();
        return action(socket);
    });

    /// <inheritdoc/>
    public void Dispose() => _fd.Dispose();

    private static SafeFd OpenFile(string path) => SafeFd.From(Libc.open(path, Libc.O_RDONLY | Libc.O_CLOEXEC, 0), "open", path);

    private static T OnThread<T>(Func<T> action)
    {
        T result = default!;
        System.Runtime.ExceptionServices.ExceptionDispatchInfo? failure = null;
        Thread thread = new(() =>
        {
            try
            {
                result = action();
            }
            catch (Exception e) when (e is not OutOfMemoryException)
            {
                failure = System.Runtime.ExceptionServices.ExceptionDispatchInfo.Capture(e);
            }
        });
        thread.Start();
        thread.Join();
        failure?.Throw();
        return result;
    }
}
