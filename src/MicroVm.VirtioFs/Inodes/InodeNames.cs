using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Descriptors;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Protocol;

namespace MicroVm.VirtioFs.Inodes;

/// <summary>Names and folders of inodes, as operations ask for them. Any thread.</summary>
internal sealed class InodeNames(InodeStore store)
{
    /// <summary>Copies the name that led to an inode last.</summary>
    /// <param name="nodeId">The guest's id of it.</param>
    /// <param name="name">Room for <see cref="FuseNames.MaxLength"/> bytes and a NUL.</param>
    /// <returns>The name's length; 0 when there is none.</returns>
    // Safe: CopyName fills at most the room that the caller has.
    public unsafe int CopyNameOf(ulong nodeId, byte* name)
    {
        lock (store.Gate)
        {
            int index = store.Slots.Find(nodeId);
            InodeTree.CopyName(index < 0 ? null : store.Slots.Entry(index).Name, name);
        }

        return new ReadOnlySpan<byte>(name, FuseNames.MaxLength + 1).IndexOf((byte)0);
    }

    /// <summary>The guest renamed a pinned inode.</summary>
    // Safe: the name is passed on, not followed.
    public unsafe void Rename(in InodePin pin, in InodePin parent, byte* name)
    {
        lock (store.Gate)
        {
            store.SetName(pin.Index, parent.Index, name);
        }
    }

    /// <summary>
    /// Whether a thread of the guest that opens an inode is to look its path up once more (ESTALE): what the guest still believes of
    /// the name that led there last is not so on the host. The same thread is told once only, for it may have come by
    /// /proc/PID/fd, which has no name to look up.
    /// </summary>
    /// <param name="pin">The inode.</param>
    /// <param name="thread">The guest's number of the thread.</param>
    // Safe: the buffer has room for the longest name and a NUL.
    public unsafe bool IsToBeLookedUp(in InodePin pin, uint thread)
    {
        byte* name = stackalloc byte[FuseNames.MaxLength + 1];
        int parent;
        int folder;
        lock (store.Gate)
        {
            ref InodeEntry e = ref store.Slots.Entry(pin.Index);
            parent = e.Parent;
            if (e.Export != InodeEntry.None || parent == InodeEntry.None || !e.HasName)
            {
                return false;
            }

            ref InodeEntry above = ref store.Slots.Entry(parent);
            if (above.Fd < 0 || above.IsClosing)
            {
                return false;
            }

            above.Pins++;
            folder = above.Fd;
            InodeTree.CopyName(e.Name, name);
        }

        bool known = HostInode.StatChild(folder, name, out Libc.statx_t stat) == 0;
        store.Unpin(parent);
        lock (store.Gate)
        {
            ref InodeEntry e = ref store.Slots.Entry(pin.Index);
            bool leadsHere = known && stat.stx_ino == e.Key.Number && InodeKey.DeviceOf(stat) == e.Key.Device && e.IsBornWith(stat);
            bool isToBe = !leadsHere && e.Doubter != thread;
            e.Doubter = isToBe ? thread : 0;
            return isToBe;
        }
    }

    /// <summary>
    /// An export was removed. Its root stays when it is another's, or lies below another; what has no export above it any
    /// more is for <see cref="FdTable{T}.CloseUnreachable"/>.
    /// </summary>
    /// <param name="export">Its number.</param>
    /// <param name="other">Gives the number of another export with that root, or <see cref="InodeEntry.None"/>.</param>
    public void RemoveExport(int export, Func<InodeKey, int> other)
    {
        lock (store.Gate)
        {
            for (int i = 0; i < store.Slots.HighWater; i++)
            {
                if (store.Slots.IsUsed(i) && store.Slots.Entry(i).Export == export)
                {
                    ref InodeEntry e = ref store.Slots.Entry(i);
                    e.Export = other(e.Key);
                    if (e.Export == InodeEntry.None && e.Parent != InodeEntry.None && e.Pins == 0 && e.Opens == 0)
                    {
                        // Its descriptor is of the export's mount; its parent leads to it through another.
                        store.Close(ref e.Fd);
                    }
                }
            }
        }
    }

    /// <summary>An export leads to the inode, or led to it when the guest forgot it.</summary>
    public bool IsReachable(ulong nodeId)
    {
        lock (store.Gate)
        {
            int index = store.Slots.Find(nodeId);
            return index >= 0 && store.Tree.IsReachable(index);
        }
    }

    /// <summary>Whether an inode is, or lies below, the root of an export of which <paramref name="isSuch"/> says so.</summary>
    public bool IsBelow(ulong nodeId, Func<int, bool> isSuch)
    {
        lock (store.Gate)
        {
            return store.Tree.IsBelow(store.Slots.Find(nodeId), isSuch);
        }
    }
}
