using MicroVm.Linux.Native;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Protocol;

namespace MicroVm.VirtioFs.Inodes;

/// <summary>
/// Opens descriptors of entries again that were closed, by parent and name. While one is closed, the time of birth tells another
/// file with the same number from it.
/// </summary>
internal sealed class InodeOpener(InodeStore store)
{
    // A guest makes deep trees, and the way to an inode is walked once for each closed folder on it.
    private const int MostClosedFolders = 4096;

    /// <summary>Opens a pinned inode's descriptor if it is closed.</summary>
    /// <returns>False, and the pin given back, when its name leads to it no more, or no descriptor is free.</returns>
    public bool TryOpenPinned(int index, out InodePin pin)
    {
        pin = default;
        while (true)
        {
            int lowest;
            int parent;
            lock (store.Gate)
            {
                ref InodeEntry e = ref store.Slots.Entry(index);
                if (e.IsClosing)
                {
                    break;
                }

                if (e.Fd >= 0)
                {
                    e.IsRecent = true;
                    pin = new InodePin(store, store.Slots.IdOf(index), index, e);
                    return true;
                }

                lowest = PinHighestClosed(index, out parent);
            }

            if (lowest == InodeEntry.None)
            {
                break;
            }

            bool opened = TryOpenByName(lowest, parent);
            store.Unpin(lowest);
            store.Unpin(parent);
            if (!opened)
            {
                break;
            }
        }

        store.Unpin(index);
        return false;
    }

    /// <summary>
    /// The highest folder on the way to an inode whose descriptor is closed, or the inode itself, with a pin; its parent has
    /// a descriptor, and a pin as well. <see cref="InodeEntry.None"/>: no open folder is above it.
    /// </summary>
    private int PinHighestClosed(int index, out int folder)
    {
        folder = InodeEntry.None;
        for (int depth = 0; depth < MostClosedFolders; depth++)
        {
            ref InodeEntry e = ref store.Slots.Entry(index);
            if (e.Parent == InodeEntry.None || e.IsClosing)
            {
                return InodeEntry.None;
            }

            ref InodeEntry parent = ref store.Slots.Entry(e.Parent);
            if (parent.Fd >= 0 && !parent.IsClosing)
            {
                e.Pins++;
                parent.Pins++;
                parent.IsRecent = true;
                folder = e.Parent;
                return index;
            }

            index = e.Parent;
        }

        return InodeEntry.None;
    }

    /// <summary>Opens a pinned inode below its parent, which is pinned as well.</summary>
    // Safe: the buffer has room for the longest name and a NUL.
    private unsafe bool TryOpenByName(int index, int parent)
    {
        byte* name = stackalloc byte[FuseNames.MaxLength + 1];
        int folder;
        lock (store.Gate)
        {
            folder = store.Slots.Entry(parent).Fd;
            InodeTree.CopyName(store.Slots.Entry(index).Name, name);
        }

        bool opened = false;
        if (store.TryTake())
        {
            int fd = HostInode.OpenBeneath(folder, name, Libc.O_PATH, 0);
            if (fd < 0)
            {
                store.Budget.Give();
            }

            opened = fd >= 0 && Adopt(index, fd);
        }

        return opened;
    }

    /// <summary>Gives an inode the descriptor that was opened for it, if it is this inode.</summary>
    private bool Adopt(int index, int fd)
    {
        int victim = InodeEntry.None;
        bool same = HostInode.Stat(fd, HostInode.StatMask, out Libc.statx_t stat) == 0;
        lock (store.Gate)
        {
            ref InodeEntry e = ref store.Slots.Entry(index);
            same = same && stat.stx_ino == e.Key.Number && InodeKey.DeviceOf(stat) == e.Key.Device && e.IsBornWith(stat);
            if (same && e.Fd < 0 && !e.IsClosing)
            {
                e.Fd = fd;
                e.MountId = (stat.stx_mask & Libc.STATX_MNT_ID) != 0 ? stat.stx_mnt_id : 0;
                fd = InodeEntry.None;
                victim = store.Idle.Add(index);
            }
        }

        store.Close(ref fd);
        store.Close(ref victim);
        return same;
    }
}
