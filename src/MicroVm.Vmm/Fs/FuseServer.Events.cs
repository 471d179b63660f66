using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Fs.Protocol;

namespace MicroVm.Vmm.Fs;

/// <content>
/// WATCH and EVENTS, of this project's guest kernel (kernel-config/patches/0019): inotify in the guest tells what the host and
/// other machines change. The guest's kernel says which inodes its processes watch.
/// </content>
internal sealed unsafe partial class FuseServer
{
    /// <summary>Bit 61 of INIT's flags.</summary>
    private const uint HostEventsFlag = 1u << 29;

    /// <summary>What others change.</summary>
    public HostEvents Events { get; } = new();

    private int Watch(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_watch_in watch))
        {
            return Fail(Errno.EINVAL);
        }

        if (r.NodeId == Fuse.FUSE_ROOT_ID && watch.mask == 0)
        {
            Events.End();
            return 0;
        }

        if (IsSynthesised(r.NodeId))
        {
            return 0; // the host does not change it
        }

        uint mask = watch.mask & HostWatches.Events;
        if (mask == 0)
        {
            _ = Events.Watch(r.NodeId, -1, 0);
            return _inodes.SetWatched(r.NodeId, false) ? 0 : Fail(Errno.ESTALE);
        }

        if (!_inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        if (inode.FileType is not (Libc.S_IFREG or Libc.S_IFDIR))
        {
            return 0; // the other end of a socket, FIFO or device is in the guest
        }

        int error = Events.Watch(r.NodeId, inode.Fd, mask);
        if (error == 0)
        {
            _ = _inodes.SetWatched(r.NodeId, true);
        }

        return error;
    }

    private int WaitForEvents(FuseRequest r)
    {
        int error = r.MayWait && r.NodeId == Fuse.FUSE_ROOT_ID ? Events.Wait(r.Header.unique, r.Chain) : Fail(Errno.EINVAL);
        return error != 0 ? error : FuseRequest.Deferred;
    }

    /// <summary>Carries out a request while something is watched: the events that it causes are not told.</summary>
    private int DispatchWatched(FuseRequest r, FuseOpcode opcode)
    {
        uint mask = OwnChange.EventsOf(opcode);
        if (mask == 0)
        {
            return Dispatch(r, opcode);
        }

        Events.Collect();
        ulong node = opcode == FuseOpcode.FUSE_COPY_FILE_RANGE && r.TryRead(0, out fuse_copy_file_range_in copy) ? copy.nodeid_out : r.NodeId;
        bool hasNames = OwnChange.HasNames(opcode);
        byte* name = stackalloc byte[FuseNames.MaxLength + 1];
        int length = hasNames ? 0 : _inodes.CopyNameOf(node, name);
        int result = Dispatch(r, opcode);
        bool two = opcode is FuseOpcode.FUSE_RENAME or FuseOpcode.FUSE_RENAME2;
        ReadOnlySpan<byte> first = hasNames ? r.NameAt(0) : new(name, length);
        Events.Collect(new OwnChange(node, mask, first, two ? r.NameAt(1) : []), hasNames);
        return result;
    }
}
