using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.Templates;

/// <summary>Opens files that decide what a VM runs: nobody but this user may have written them.</summary>
internal static unsafe class OwnFile
{
    private const uint WritableByOthers = 0b000_010_010;

    /// <summary>Opens a folder by its path, which the administrator chose.</summary>
    /// <exception cref="LinuxException">It cannot be opened; ENOENT: it does not exist.</exception>
    /// <exception cref="SandboxException">It belongs to another user, or others may write to it.</exception>
    internal static SafeFd OpenFolder(string path) =>
        Checked(SafeFd.From(Libc.open(path, Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", path), path);

    /// <summary>Opens an entry of a folder; a link is not followed.</summary>
    /// <param name="folder">The folder.</param>
    /// <param name="name">The entry.</param>
    /// <param name="flags">O_RDONLY, or O_PATH | O_DIRECTORY for a folder.</param>
    /// <param name="path">Its path, for messages.</param>
    /// <exception cref="LinuxException">It cannot be opened; ENOENT: it does not exist.</exception>
    /// <exception cref="SandboxException">It belongs to another user, or others may write to it.</exception>
    internal static SafeFd Open(SafeFd folder, string name, int flags, string path) =>
        Checked(SafeFd.From(Libc.openat(folder.Value, name, flags | Libc.O_NOFOLLOW | Libc.O_CLOEXEC | Libc.O_NOCTTY, 0), "open", path), path);

    private static SafeFd Checked(SafeFd fd, string path)
    {
        Libc.statx_t stat;
        byte empty = 0;
        int result = Libc.statx(fd.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_BASIC_STATS, &stat);
        if (result == 0 && stat.stx_uid == Libc.geteuid() && (stat.stx_mode & WritableByOthers) == 0)
        {
            return fd;
        }

        fd.Dispose();
        Check.Result(result, "statx", path);
        throw new SandboxException($"{path} is not used: it belongs to user {stat.stx_uid} with mode {Convert.ToString(stat.stx_mode & 0xfff, 8)}, and must be this user's and writable by no other");
    }
}
