using MicroVm.Linux;
using MicroVm.Linux.Native;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.HostFiles;

/// <summary>
/// Opens the host's files one path component at a time, never through a symbolic link and never upwards, and reads their attributes.
/// </summary>
internal static class HostInode
{
    private const ulong ResolveOneComponent = Libc.RESOLVE_BENEATH | Libc.RESOLVE_NO_SYMLINKS | Libc.RESOLVE_NO_MAGICLINKS;

    /// <summary>How statx(2) takes a name: neither links nor automounts are followed.</summary>
    public const int StatFlags = Libc.AT_SYMLINK_NOFOLLOW | Libc.AT_NO_AUTOMOUNT;

    /// <summary>What statx(2) is asked for of an inode that the guest gets to know.</summary>
    public const uint StatMask = Libc.STATX_BASIC_STATS | Libc.STATX_MNT_ID | Libc.STATX_BTIME;

    /// <summary>Opens one component below a directory, never through a link, never upwards.</summary>
    // Safe: the name ends in a NUL and stays for the request; it is only read.
    public static unsafe int OpenBeneath(int directory, byte* name, int flags, uint mode)
    {
        Libc.open_how how = new()
        {
            flags = (uint)(flags | Libc.O_NOFOLLOW | Libc.O_CLOEXEC),
            mode = mode,
            resolve = ResolveOneComponent,
        };
        return Libc.openat2(directory, name, &how, (nuint)sizeof(Libc.open_how));
    }

    /// <summary>Attributes of the file behind a descriptor as the host has them; on any thread.</summary>
    // Safe: the answer is pinned for the call, which writes a statx_t.
    public static unsafe int Stat(int fd, uint mask, out Libc.statx_t stat)
    {
        byte empty = 0;
        fixed (Libc.statx_t* p = &stat)
        {
            return Result(Libc.statx(fd, &empty, StatFlags | Libc.AT_EMPTY_PATH, mask, p));
        }
    }

    /// <summary>Attributes of what a checked name of one component leads to below a directory, links not followed, as the host has them.</summary>
    // Safe: as for Stat; the name ends in a NUL and stays for the request; it is only read.
    public static unsafe int StatChild(int directory, byte* name, out Libc.statx_t stat)
    {
        fixed (Libc.statx_t* p = &stat)
        {
            return Result(Libc.statx(directory, name, StatFlags, StatMask, p));
        }
    }

    /// <summary>
    /// Opens an inode for I/O through /proc/self/fd, which leads to that very inode whatever became of its name. Only
    /// regular files and directories: opening a FIFO blocks, and a device is the host's.
    /// </summary>
    /// <returns>The descriptor, or a negative errno.</returns>
    // Safe: the link has room for any descriptor's number; the kernel reads it only.
    public static unsafe int Reopen(SafeFd procSelfFd, int fd, uint type, int flags)
    {
        if (type != Libc.S_IFREG && type != Libc.S_IFDIR)
        {
            return Fail(type == Libc.S_IFLNK ? Errno.ELOOP : Errno.ENXIO);
        }

        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(fd, link);
        int opened = Libc.openat(procSelfFd.Value, link, (flags & ~Libc.O_NOFOLLOW) | Libc.O_CLOEXEC, 0);
        return opened < 0 ? Failed() : opened;
    }
}
