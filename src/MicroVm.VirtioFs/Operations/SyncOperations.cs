using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Handles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>FSYNC, FSYNCDIR and SYNCFS.</summary>
internal sealed class SyncOperations(FsContext fs)
{
    public int Sync(FuseRequest r, bool directory)
    {
        if (!r.TryRead(0, out fuse_fsync_in sync))
        {
            return Fail(Errno.EINVAL);
        }

        if (directory && fs.Synthetic.Is(r.NodeId))
        {
            return 0;
        }

        if (!fs.Handles.TryPin(sync.fh, r.NodeId, directory ? HandleKind.Directory : HandleKind.File, out HandlePin handle))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinned = handle;
        return Result((sync.fsync_flags & Fuse.FUSE_FSYNC_FDATASYNC) != 0 ? Libc.fdatasync(handle.Fd) : Libc.fsync(handle.Fd));
    }

    /// <summary>Writes back the file systems that exports lie on: of one inode, or of all writable exports for the root.</summary>
    public int SyncFs(FuseRequest r)
    {
        if (!fs.Synthetic.Is(r.NodeId))
        {
            if (!fs.Inodes.TryPin(r.NodeId, out InodePin inode))
            {
                return Fail(Errno.ESTALE);
            }

            // Nothing there is the guest's to write back, and the host's file system is not its to keep busy.
            using InodePin pinned = inode;
            return fs.Exports.RulesOf(inode.Key).ReadOnly ? Fail(Errno.EROFS) : SyncFsOf(inode.Fd, inode.FileType);
        }

        int result = 0;
        for (int i = 0; i < fs.Exports.HighWater; i++)
        {
            if (fs.Exports[i] is { Rules.ReadOnly: false, FileType: not Libc.S_IFIFO } export && SyntheticDirectories.IsIn(export, r.NodeId))
            {
                int fd = fs.Exports.Duplicate(export, out _);
                if (fd >= 0)
                {
                    int error = SyncFsOf(fd, export.FileType);
                    result = result == 0 ? error : result;
                    _ = Libc.close(fd);
                }
            }
        }

        return result;
    }

    private int SyncFsOf(int path, uint type)
    {
        int fd = fs.Reopen(path, type, Libc.O_RDONLY);
        if (fd < 0)
        {
            return fd;
        }

        int error = Result(Libc.syncfs(fd));
        _ = Libc.close(fd);
        return error;
    }
}
