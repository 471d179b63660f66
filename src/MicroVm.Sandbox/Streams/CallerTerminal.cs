using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.Streams;

/// <summary>The terminal of a command in the foreground, by which a person works with the container's process.</summary>
internal static class CallerTerminal
{
    /// <summary>
    /// The first terminal among the standard streams, else the controlling terminal, when all three are redirected (as runc); null when
    /// there is none. A controlling terminal is the caller's to close.
    /// </summary>
    internal static SafeFd? Find() => OfStreams() ?? Controlling();

    /// <summary>The terminal among the standard streams; null when there is none.</summary>
    internal static SafeFd? OfStreams() => Among(HostStreams.Error, HostStreams.Output, HostStreams.Input);

    /// <summary>The first terminal of several streams; null when none is one.</summary>
    internal static SafeFd? Among(params ReadOnlySpan<SafeFd> streams)
    {
        foreach (SafeFd stream in streams)
        {
            if (Terminal.Is(stream))
            {
                return stream;
            }
        }

        return null;
    }

    /// <summary>Whether there is one.</summary>
    internal static bool Exists
    {
        get
        {
            if (OfStreams() is not null)
            {
                return true;
            }

            using SafeFd? controlling = Controlling();
            return controlling is not null;
        }
    }

    /// <summary>The error of a command that needs a terminal and has none.</summary>
    internal static SandboxException Missing => new("open /dev/tty: no such device or address");

    private static SafeFd? Controlling()
    {
        SafeFd fd = new(Libc.open("/dev/tty", Libc.O_RDWR | Libc.O_NOCTTY | Libc.O_CLOEXEC, 0));
        return fd.IsInvalid ? null : fd;
    }
}
