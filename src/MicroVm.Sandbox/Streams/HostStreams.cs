using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.Streams;

/// <summary>This process's standard streams, by descriptor; not owned, and never made non-blocking: others share them.</summary>
internal static class HostStreams
{
    internal static readonly SafeFd Input = new(0);
    internal static readonly SafeFd Output = new(1);
    internal static readonly SafeFd Error = new(2);

    /// <summary>
    /// Opens /dev/null for standard streams that the caller closed, so that no file of ours gets their numbers, and
    /// ignores SIGPIPE, so that a reader that went away is an error of the write.
    /// </summary>
    internal static unsafe void Prepare()
    {
        for (int fd = 0; fd <= 2; fd++)
        {
            if (Libc.fcntl(fd, Libc.F_GETFD, 0) < 0)
            {
                _ = Libc.open("/dev/null", Libc.O_RDWR, 0);
            }
        }

        Libc.sigaction_t ignore = new() { sa_handler = (void*)1 };
        _ = Libc.sigaction(Libc.SIGPIPE, &ignore, null);
    }

    /// <summary>Points a stream at /dev/null, so that the caller's pipe ends while this process goes on. Its number stays in use.</summary>
    internal static void End(SafeFd stream)
    {
        using SafeFd nothing = new(Libc.open("/dev/null", Libc.O_RDWR | Libc.O_CLOEXEC, 0));
        if (nothing.IsInvalid || stream.IsInvalid)
        {
            return;
        }

        // Held meanwhile: one that is closed by another thread gives its number to another file.
        bool held = false;
        try
        {
            stream.DangerousAddRef(ref held);
            _ = Libc.dup3(nothing.Value, stream.Value, stream.Value > 2 ? Libc.O_CLOEXEC : 0);
        }
        catch (ObjectDisposedException)
        {
            // Closed already.
        }
        finally
        {
            if (held)
            {
                stream.DangerousRelease();
            }
        }
    }

    /// <summary>
    /// Whether what is written to two streams comes to the same place in order: one open file, or one pipe, socket or device. A regular
    /// file that was opened twice is not, unless both append.
    /// </summary>
    internal static unsafe bool AreOne(SafeFd one, SafeFd other)
    {
        int own = Environment.ProcessId;
        if (Libc.kcmp(own, own, Libc.KCMP_FILE, one.Value, other.Value) == 0)
        {
            return true;
        }

        Libc.statx_t a, b;
        byte empty = 0;
        if (Libc.statx(one.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_BASIC_STATS, &a) < 0
            || Libc.statx(other.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_BASIC_STATS, &b) < 0
            || FileIdentity.Of(a) != FileIdentity.Of(b))
        {
            return false;
        }

        bool appends(SafeFd fd) => (Libc.fcntl(fd.Value, Libc.F_GETFL, 0) & Libc.O_APPEND) != 0;
        return (a.stx_mode & Libc.S_IFMT) != Libc.S_IFREG || (appends(one) && appends(other));
    }

    /// <summary>Whether a stream is /dev/null, which needs no relaying: the guest has its own.</summary>
    internal static unsafe bool IsNull(SafeFd fd)
    {
        Libc.statx_t stat;
        byte empty = 0;
        return Libc.statx(fd.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_TYPE, &stat) == 0
            && (stat.stx_mode & Libc.S_IFMT) == Libc.S_IFCHR
            && stat.stx_rdev_major == 1
            && stat.stx_rdev_minor == 3;
    }
}
