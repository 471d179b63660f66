using System.Globalization;
using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>
/// Opens files that others chose, for reading. The type is known before the file is opened: opening a device node, a FIFO or a socket has
/// effects of its own (open(2)), and an image or a bundle may hold any of them.
/// </summary>
public static unsafe class RegularFile
{
    /// <summary>Opens a file; links are followed.</summary>
    /// <exception cref="LinuxException">It cannot be opened; EINVAL: it is no regular file.</exception>
    public static SafeFd Open(string path)
    {
        using SafeFd name = SafeFd.From(Libc.open(path, Libc.O_PATH | Libc.O_CLOEXEC, 0), "open", path);
        return Reopen(name) is { } file ? file : throw new LinuxException(IsRegular(name) ? Check.LastErrno : Errno.EINVAL, "open", path);
    }

    /// <summary>Opens a file below a root that its links do not leave; null when there is no such regular file.</summary>
    /// <param name="root">Path of the root.</param>
    /// <param name="path">Path below it, with a NUL at its end.</param>
    public static SafeFd? TryOpenIn(string root, ReadOnlySpan<byte> path)
    {
        using SafeFd? name = InRoot.TryFind(root, path);
        return name is null ? null : Reopen(name);
    }

    private static SafeFd? Reopen(SafeFd name)
    {
        if (!IsRegular(name))
        {
            return null;
        }

        string link = string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{name.Value}");
        SafeFd file = new(Libc.open(link, Libc.O_RDONLY | Libc.O_NOCTTY | Libc.O_CLOEXEC, 0));
        if (!file.IsInvalid)
        {
            return file;
        }

        file.Dispose();
        return null;
    }

    private static bool IsRegular(SafeFd file)
    {
        Libc.statx_t stat;
        byte empty = 0;
        return Libc.statx(file.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_TYPE, &stat) == 0 && (stat.stx_mode & Libc.S_IFMT) == Libc.S_IFREG;
    }
}
