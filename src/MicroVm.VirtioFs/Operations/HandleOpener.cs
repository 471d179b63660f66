using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Exports;
using MicroVm.VirtioFs.Handles;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using MicroVm.VmmControl;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>Opens inodes for the guest and makes the handles.</summary>
internal sealed class HandleOpener(FsContext fs, SetIdBits setId)
{
    /// <summary>
    /// What the guest's open flags may carry over to the host. Not O_DIRECT, whose alignment rules the guest does not know,
    /// nor O_NONBLOCK, which means nothing for regular files.
    /// </summary>
    public const int PassedFlags =
        Libc.O_ACCMODE | Libc.O_APPEND | Libc.O_TRUNC | Libc.O_SYNC | Libc.O_NOATIME | Libc.O_LARGEFILE;

    public int OpenHandle(FuseRequest r, in InodePin inode, int flags, uint openFlags, out fuse_open_out reply)
    {
        reply = default;
        if (inode.FileType == Libc.S_IFDIR)
        {
            return Fail(Errno.EISDIR);
        }

        flags &= PassedFlags;
        if (fs.Exports.RulesOf(inode.Key).ReadOnly && Changes(flags))
        {
            return Fail(Errno.EROFS);
        }

        if (!fs.Handles.TryReserve())
        {
            return Fail(Errno.ENFILE);
        }

        SetIdState bits = (flags & Libc.O_TRUNC) == 0 ? default
            : setId.BeforeChange(r, inode.Fd, (openFlags & Fuse.FUSE_OPEN_KILL_SUIDGID) != 0);
        int fd = fs.Reopen(inode.Fd, inode.FileType, flags);
        SetIdBits.AfterChange(r, fd, bits);
        if (fd < 0)
        {
            fs.Handles.Release();
            return fd;
        }

        if (Changes(flags))
        {
            fs.RefreshChanged(inode);
        }

        int error = AddHandle(inode, HandleKind.File, fd, flags, out reply);
        if (error == 0 && (reply.open_flags & Fuse.FOPEN_KEEP_CACHE) == 0 && HasMadeUpContents(fd))
        {
            // Some of them wait for an event that may never come.
            _ = Libc.fcntl(fd, Libc.F_SETFL, flags | Libc.O_NONBLOCK);
            reply.open_flags |= Fuse.FOPEN_DIRECT_IO;
        }

        return error;
    }

    /// <summary>Makes the handle for an open descriptor; takes over it and the place that was reserved.</summary>
    public int AddHandle(in InodePin inode, HandleKind kind, int fd, int flags, out fuse_open_out reply)
    {
        ExportRules rules = fs.Exports.RulesOf(inode.Key);
        fs.Inodes.AddOpen(inode);
        reply = new fuse_open_out { fh = fs.Handles.Add(inode.NodeId, kind, fd, flags), open_flags = OpenFlags(rules, kind) };
        if (fs.Inodes.Names.IsReachable(inode.NodeId))
        {
            return 0;
        }

        // Its export was removed meanwhile: handles below it have been closed, and this one came too late for that.
        _ = fs.Handles.Remove(reply.fh, inode.NodeId, kind is HandleKind.Directory or HandleKind.Root);
        return Fail(Errno.ESTALE);
    }

    /// <summary>The host would allow O_RDONLY | O_TRUNC, so that asking whether a change is meant takes both.</summary>
    private static bool Changes(int flags) => (flags & Libc.O_ACCMODE) != Libc.O_RDONLY || (flags & Libc.O_TRUNC) != 0;

    /// <summary>
    /// A tree that only this guest changes keeps its cached pages over an open, and a close tells the host nothing that
    /// it must know, which saves a request: unless the guest's kernel would leave the file's locks to this side.
    /// </summary>
    private uint OpenFlags(ExportRules rules, HandleKind kind) =>
        rules.Cache != FsCache.Exclusive ? 0
        : Fuse.FOPEN_KEEP_CACHE | (kind == HandleKind.Directory ? Fuse.FOPEN_CACHE_DIR : 0) | (fs.Session.LocksStayInGuest ? Fuse.FOPEN_NOFLUSH : 0);

    /// <summary>
    /// The file's contents are made when they are read and st_size does not tell how long they are, as in /proc and /sys: the
    /// guest's kernel must ask for them instead of believing the size and its cache.
    /// </summary>
    // Safe: the kernel reads and writes locals of this call only.
    private static unsafe bool HasMadeUpContents(int fd)
    {
        Libc.statfs_t stat;
        return Libc.fstatfs(fd, &stat) == 0 && stat.f_type switch
        {
            Libc.PROC_SUPER_MAGIC or Libc.SYSFS_MAGIC or Libc.CGROUP_SUPER_MAGIC or Libc.CGROUP2_SUPER_MAGIC
                or Libc.DEBUGFS_MAGIC or Libc.TRACEFS_MAGIC or Libc.SECURITYFS_MAGIC or Libc.BPF_FS_MAGIC => true,

            // Such as lxcfs.
            Libc.FUSE_SUPER_MAGIC => DeviceMark.Stat(fd, Libc.STATX_SIZE, out Libc.statx_t s) == 0 && s.stx_size == 0,
            _ => false,
        };
    }
}
