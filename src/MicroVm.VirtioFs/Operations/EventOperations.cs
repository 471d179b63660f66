using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Events;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>
/// WATCH and EVENTS, of this project's guest kernel (kernel-config/patches/0019): inotify in the guest reports what the host and
/// other machines change. The guest's kernel says which inodes its processes watch.
/// </summary>
internal sealed class EventOperations(FsContext fs)
{
    public int Watch(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_watch_in watch))
        {
            return Fail(Errno.EINVAL);
        }

        if (r.NodeId == Fuse.FUSE_ROOT_ID && watch.mask == 0)
        {
            fs.Events.End();
            return 0;
        }

        if (fs.Synthetic.Is(r.NodeId))
        {
            return 0; // the host does not change it
        }

        uint mask = watch.mask & HostWatches.Events;
        if (mask == 0)
        {
            _ = fs.Events.Watch(r.NodeId, -1, 0);
            return fs.Inodes.SetWatched(r.NodeId, false) ? 0 : Fail(Errno.ESTALE);
        }

        if (!fs.Inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        if (inode.FileType is not (Libc.S_IFREG or Libc.S_IFDIR))
        {
            return 0; // the other end of a socket, FIFO or device is in the guest
        }

        int error = fs.Events.Watch(r.NodeId, inode.Fd, mask);
        if (error == 0)
        {
            _ = fs.Inodes.SetWatched(r.NodeId, true);
        }

        return error;
    }

    public int Wait(FuseRequest r)
    {
        int error = r.MayWait && r.NodeId == Fuse.FUSE_ROOT_ID ? fs.Events.Wait(r.Header.unique, r.Chain) : Fail(Errno.EINVAL);
        return error != 0 ? error : FuseRequest.Deferred;
    }
}
