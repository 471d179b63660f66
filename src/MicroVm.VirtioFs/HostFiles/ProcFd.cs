using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.VirtioFs.HostFiles;

/// <summary>
/// /proc/self/fd, kept open so that it goes on working in a jail: the one way to open an O_PATH descriptor for I/O.
/// </summary>
public static class ProcFd
{
    /// <summary>Room for <see cref="Format"/>: ten digits and a NUL.</summary>
    public const int NameLength = 12;

    private static SafeFd? s_given;

    /// <summary>Takes over a descriptor of the directory, for a process in whose jail there is no /proc.</summary>
    public static void Use(SafeFd procSelfFd) => s_given = procSelfFd;

    /// <summary>Another descriptor of the directory, for the caller to own.</summary>
    /// <exception cref="LinuxException">None was given and procfs is not mounted at /proc.</exception>
    public static SafeFd Open() => s_given?.Duplicate() ?? SafeFd.From(
        Libc.open("/proc/self/fd", Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", "/proc/self/fd");

    /// <summary>Writes the entry's name for descriptor <paramref name="fd"/>, with a NUL at its end.</summary>
    // Safe: callers have NameLength bytes: an int has ten digits at most.
    public static unsafe void Format(int fd, byte* name)
    {
        int digits = 1;
        for (int rest = fd / 10; rest > 0; rest /= 10)
        {
            digits++;
        }

        name[digits] = 0;
        for (int i = digits - 1; i >= 0; i--)
        {
            name[i] = (byte)('0' + (fd % 10));
            fd /= 10;
        }
    }
}
