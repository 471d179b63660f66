using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Handles;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>SETATTR: owner, size, mode and times.</summary>
internal sealed class AttributeChangeOperations(FsContext fs, AttributeOperations attributes, SetIdBits setId)
{
    public int Set(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_setattr_in change))
        {
            return Fail(Errno.EINVAL);
        }

        int error = fs.PinForChange(r.NodeId, out InodePin inode);
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
            error = SetMode(inode, setId.AllowedMode(change.mode & 0xFFF, inode.FileType));
        }

        const uint Times = Fuse.FATTR_ATIME | Fuse.FATTR_MTIME | Fuse.FATTR_ATIME_NOW | Fuse.FATTR_MTIME_NOW;
        if (error == 0 && (change.valid & Times) != 0)
        {
            error = SetTimes(inode, change);
        }

        return error != 0 ? error : attributes.Reply(r, inode);
    }

    // Safe: the link has room for any descriptor's number; the kernel reads it only.
    private unsafe int SetMode(in InodePin inode, uint mode)
    {
        if (inode.FileType is Libc.S_IFCHR or Libc.S_IFBLK && DeviceMark.ChangeMode(inode.Fd, mode) == 0)
        {
            return 0;
        }

        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(inode.Fd, link);
        return Result(Libc.fchmodat(fs.ProcSelfFd.Value, link, mode, 0));
    }

    // Safe: the kernel reads and writes locals of this call only.
    private static unsafe int SetOwner(in InodePin inode, in fuse_setattr_in change)
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
            if (!fs.Handles.TryPin(change.fh, inode.NodeId, HandleKind.File, out HandlePin handle))
            {
                return Fail(Errno.EBADF);
            }

            using HandlePin pinned = handle;
            return Truncate(r, handle.Fd, change.size, kill);
        }

        int fd = fs.Reopen(inode.Fd, inode.FileType, Libc.O_WRONLY | Libc.O_NONBLOCK);
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
        SetIdState bits = setId.BeforeChange(r, fd, kill);
        int error = Result(Libc.ftruncate(fd, (long)size));
        SetIdBits.AfterChange(r, fd, bits);
        return error;
    }

    // Safe: the kernel reads and writes locals of this call only.
    private static unsafe int SetTimes(in InodePin inode, in fuse_setattr_in change)
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
}
