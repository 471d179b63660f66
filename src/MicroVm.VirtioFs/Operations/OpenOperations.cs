using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Handles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>OPEN, RELEASE and FLUSH.</summary>
internal sealed class OpenOperations(FsContext fs, HandleOpener opener)
{
    public int Open(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_open_in open))
        {
            return Fail(Errno.EINVAL);
        }

        if (!fs.Inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return fs.Synthetic.Is(r.NodeId) ? Fail(Errno.EISDIR) : Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        if (inode.FileType == Libc.S_IFREG && fs.Inodes.Names.IsToBeLookedUp(inode, r.Header.pid))
        {
            return Fail(Errno.ESTALE);
        }

        int error = opener.OpenHandle(r, inode, (int)open.flags, open.open_flags, out fuse_open_out reply);
        return error != 0 ? error : r.Reply(reply);
    }

    public int Release(FuseRequest r, bool directory)
    {
        if (!r.TryRead(0, out fuse_release_in release))
        {
            return Fail(Errno.EINVAL);
        }

        if (!fs.Handles.Remove(release.fh, r.NodeId, directory))
        {
            return Fail(Errno.EBADF);
        }

        // The handle's descriptor held what flock(2) locked by it.
        fs.Locks.ReleaseHandle(r.NodeId, release.fh);
        fs.Fifos.Remove(release.fh);
        if ((release.release_flags & Fuse.FUSE_RELEASE_FLOCK_UNLOCK) != 0)
        {
            fs.Locks.NoteRelease();
        }

        return 0;
    }

    /// <summary>A process that closes a descriptor gives up its locks of the file. Closing a duplicate brings errors to light that the host's file system keeps for close(2), as NFS does.</summary>
    public int Flush(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_flush_in flush))
        {
            return Fail(Errno.EINVAL);
        }

        if (!fs.Handles.TryPin(flush.fh, r.NodeId, HandleKind.File, out HandlePin handle))
        {
            return Fail(Errno.EBADF);
        }

        fs.Locks.ReleaseOwner(r.NodeId, flush.lock_owner);

        using HandlePin pinned = handle;
        int copy = Libc.fcntl(handle.Fd, Libc.F_DUPFD_CLOEXEC, 0);
        return copy < 0 ? Failed() : Result(Libc.close(copy));
    }
}
