using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Fs.Protocol;

namespace MicroVm.Vmm.Fs;

/// <content>Attributes of inodes and file systems.</content>
internal sealed unsafe partial class FuseServer
{
    private const uint RootMode = Libc.S_IFDIR | 0x16D; // 0555

    private static uint EncodeDevice(uint major, uint minor) => (minor & 0xFF) | (major << 8) | ((minor & ~0xFFu) << 12);

    private static void RootAttributes(out fuse_attr attr) => attr = new fuse_attr
    {
        ino = InodeNumbers.Root,
        mode = RootMode,
        nlink = 2,
        blksize = 4096,
    };

    private void FillAttributes(in Libc.statx_t stat, int home, out fuse_attr attr) => attr = new fuse_attr
    {
        ino = NumberOf(home, stat),
        size = stat.stx_size,
        blocks = stat.stx_blocks,
        atime = (ulong)stat.stx_atime.tv_sec,
        mtime = (ulong)stat.stx_mtime.tv_sec,
        ctime = (ulong)stat.stx_ctime.tv_sec,
        atimensec = stat.stx_atime.tv_nsec,
        mtimensec = stat.stx_mtime.tv_nsec,
        ctimensec = stat.stx_ctime.tv_nsec,
        mode = stat.stx_mode,
        nlink = stat.stx_nlink,
        uid = stat.stx_uid,
        gid = stat.stx_gid,
        rdev = EncodeDevice(stat.stx_rdev_major, stat.stx_rdev_minor),
        blksize = stat.stx_blksize,
    };

    private int GetAttributes(FuseRequest r)
    {
        if (IsSynthesised(r.NodeId))
        {
            fuse_attr_out root = default;
            RootAttributes(out root.attr);
            return r.Reply(root);
        }

        if (!_inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        return ReplyAttributes(r, inode);
    }

    private int ReplyAttributes(FuseRequest r, in InodePin inode)
    {
        int error = StatDescriptor(inode.Fd, StatMask, out Libc.statx_t stat);
        if (error != 0)
        {
            return error;
        }

        _inodes.Refresh(inode, stat);
        fuse_attr_out reply = new() { attr_valid = ExportRules.ValidSeconds };
        FillAttributes(stat, inode.Key.Home, out reply.attr);
        reply.attr.flags |= MappingFlags(_exports.RulesOf(inode.Key), stat.stx_mode);
        return r.Reply(reply);
    }

    private int Statx(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_statx_in request))
        {
            return Fail(Errno.EINVAL);
        }

        if (IsSynthesised(r.NodeId))
        {
            fuse_statx_out root = default;
            root.stat.mask = Libc.STATX_BASIC_STATS;
            (root.stat.ino, root.stat.mode, root.stat.nlink, root.stat.blksize) = (InodeNumbers.Root, (ushort)RootMode, 2, 4096);
            return r.Reply(root);
        }

        if (!_inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        const uint Known = Libc.STATX_BASIC_STATS | Libc.STATX_BTIME;
        const uint OfMark = Libc.STATX_TYPE | Libc.STATX_MODE | Libc.STATX_SIZE;
        int error = StatDescriptor(inode.Fd, (request.sx_mask & Known) | OfMark, out Libc.statx_t stat);
        if (error != 0)
        {
            return error;
        }

        fuse_statx_out reply = new() { attr_valid = ExportRules.ValidSeconds };
        reply.stat = new fuse_statx
        {
            mask = stat.stx_mask & Known,
            blksize = stat.stx_blksize,
            attributes = stat.stx_attributes,
            attributes_mask = stat.stx_attributes_mask,
            nlink = stat.stx_nlink,
            uid = stat.stx_uid,
            gid = stat.stx_gid,
            mode = stat.stx_mode,
            ino = NumberOf(inode.Key.Home, stat),
            size = stat.stx_size,
            blocks = stat.stx_blocks,
            atime = Time(stat.stx_atime),
            btime = Time(stat.stx_btime),
            ctime = Time(stat.stx_ctime),
            mtime = Time(stat.stx_mtime),
            rdev_major = stat.stx_rdev_major,
            rdev_minor = stat.stx_rdev_minor,
        };
        return r.Reply(reply);

        static fuse_sx_time Time(in Libc.statx_timestamp t) => new() { tv_sec = t.tv_sec, tv_nsec = t.tv_nsec };
    }

    private int SetAttributes(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_setattr_in change))
        {
            return Fail(Errno.EINVAL);
        }

        int error = PinForChange(r.NodeId, out InodePin inode);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = inode;

        // Owner and size before the mode: both clear set-id bits, which the new mode may have again. Times last: the
        // other changes move them.
        error = (change.valid & (Fuse.FATTR_UID | Fuse.FATTR_GID)) == 0 ? 0 : SetOwner(inode, change);
        if (error == 0 && (change.valid & Fuse.FATTR_SIZE) != 0)
        {
            error = SetSize(r, inode, change);
        }

        if (error == 0 && (change.valid & Fuse.FATTR_MODE) != 0)
        {
            error = SetMode(inode, AllowedMode(change.mode & 0xFFF, inode.FileType));
        }

        const uint Times = Fuse.FATTR_ATIME | Fuse.FATTR_MTIME | Fuse.FATTR_ATIME_NOW | Fuse.FATTR_MTIME_NOW;
        if (error == 0 && (change.valid & Times) != 0)
        {
            error = SetTimes(inode, change);
        }

        return error != 0 ? error : ReplyAttributes(r, inode);
    }

    private int SetMode(in InodePin inode, uint mode)
    {
        if (inode.FileType is Libc.S_IFCHR or Libc.S_IFBLK && DeviceMark.ChangeMode(inode.Fd, mode) == 0)
        {
            return 0;
        }

        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(inode.Fd, link);
        return Result(Libc.fchmodat(_procSelfFd.Value, link, mode, 0));
    }

    private static int SetOwner(in InodePin inode, in fuse_setattr_in change)
    {
        uint uid = (change.valid & Fuse.FATTR_UID) != 0 ? change.uid : uint.MaxValue;
        uint gid = (change.valid & Fuse.FATTR_GID) != 0 ? change.gid : uint.MaxValue;
        byte empty = 0;
        int error = Result(Libc.fchownat(inode.Fd, &empty, uid, gid, Libc.AT_EMPTY_PATH | Libc.AT_SYMLINK_NOFOLLOW));

        // An id that the VMM's user namespace has not.
        return error == Fail(Errno.EINVAL) ? Fail(Errno.EPERM) : error;
    }

    private int SetSize(FuseRequest r, in InodePin inode, in fuse_setattr_in change)
    {
        if (change.size > long.MaxValue)
        {
            return Fail(Errno.EINVAL);
        }

        bool kill = (change.valid & Fuse.FATTR_KILL_SUIDGID) != 0;
        if ((change.valid & Fuse.FATTR_FH) != 0)
        {
            if (!_handles.TryPin(change.fh, inode.NodeId, HandleKind.File, out HandlePin handle))
            {
                return Fail(Errno.EBADF);
            }

            using HandlePin pinned = handle;
            return Truncate(r, handle.Fd, change.size, kill);
        }

        int fd = Reopen(inode.Fd, inode.FileType, Libc.O_WRONLY | Libc.O_NONBLOCK);
        if (fd < 0)
        {
            return inode.FileType == Libc.S_IFREG ? fd : Fail(Errno.EINVAL);
        }

        int error = Truncate(r, fd, change.size, kill);
        _ = Libc.close(fd);
        return error;
    }

    private int Truncate(FuseRequest r, int fd, ulong size, bool kill)
    {
        SetIdState bits = BeforeChange(r, fd, kill);
        int error = Result(Libc.ftruncate(fd, (long)size));
        AfterChange(r, fd, bits);
        return error;
    }

    private static int SetTimes(in InodePin inode, in fuse_setattr_in change)
    {
        Libc.timespec* times = stackalloc Libc.timespec[2];
        times[0] = Time(change.valid, Fuse.FATTR_ATIME, Fuse.FATTR_ATIME_NOW, change.atime, change.atimensec);
        times[1] = Time(change.valid, Fuse.FATTR_MTIME, Fuse.FATTR_MTIME_NOW, change.mtime, change.mtimensec);
        byte empty = 0;
        return Result(Libc.utimensat(inode.Fd, &empty, times, Libc.AT_EMPTY_PATH));

        // Nanoseconds above 999,999,999 include UTIME_NOW and UTIME_OMIT, which are not the guest's to send as a time:
        // the host's kernel refuses what is neither.
        static Libc.timespec Time(uint valid, uint flag, uint now, ulong seconds, uint nanoseconds) =>
            (valid & now) != 0 ? new() { tv_nsec = Libc.UTIME_NOW }
            : (valid & flag) != 0 ? new() { tv_sec = (long)seconds, tv_nsec = nanoseconds < 1_000_000_000 ? nanoseconds : -1 }
            : new() { tv_nsec = Libc.UTIME_OMIT };
    }

    private int StatFs(FuseRequest r)
    {
        fuse_statfs_out reply = default;
        if (IsSynthesised(r.NodeId))
        {
            (reply.st.bsize, reply.st.frsize, reply.st.namelen) = (4096, 4096, FuseNames.MaxLength);
            return r.Reply(reply);
        }

        if (!_inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        Libc.statfs_t stat;
        if (Libc.fstatfs(inode.Fd, &stat) != 0)
        {
            return Failed();
        }

        reply.st = new fuse_kstatfs
        {
            blocks = stat.f_blocks,
            bfree = stat.f_bfree,
            bavail = stat.f_bavail,
            files = stat.f_files,
            ffree = stat.f_ffree,
            bsize = (uint)stat.f_bsize,
            namelen = (uint)stat.f_namelen,
            frsize = (uint)stat.f_frsize,
        };
        return r.Reply(reply);
    }

    /// <summary>Lends an inode for a change: EROFS in the synthesised root and in read-only exports.</summary>
    private int PinForChange(ulong nodeId, out InodePin inode)
    {
        inode = default;
        if (IsSynthesised(nodeId))
        {
            return Fail(Errno.EROFS);
        }

        if (!_inodes.TryPin(nodeId, out inode))
        {
            return Fail(Errno.ESTALE);
        }

        if (!_exports.RulesOf(inode.Key).ReadOnly)
        {
            return 0;
        }

        inode.Dispose();
        inode = default;
        return Fail(Errno.EROFS);
    }
}
