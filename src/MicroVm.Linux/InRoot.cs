using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>Finds files below a root that their links do not leave (openat2(2), RESOLVE_IN_ROOT).</summary>
public static unsafe class InRoot
{
    /// <summary>Finds a file without opening it for anything; null when there is no such file, or no such root.</summary>
    /// <param name="root">Path of the root.</param>
    /// <param name="path">Path below it, with a NUL at its end; magic links of /proc lead nowhere.</param>
    /// <returns>An O_PATH descriptor.</returns>
    public static SafeFd? TryFind(string root, ReadOnlySpan<byte> path)
    {
        using SafeFd directory = new(Libc.open(root, Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0));
        if (directory.IsInvalid)
        {
            return null;
        }

        Libc.open_how how = new() { flags = Libc.O_PATH | Libc.O_CLOEXEC, resolve = Libc.RESOLVE_IN_ROOT | Libc.RESOLVE_NO_MAGICLINKS };
        fixed (byte* p = path)
        {
            int fd = Resolved.Open(directory.Value, p, how);
            return fd < 0 ? null : new SafeFd(fd);
        }
    }
}
