using MicroVm.Linux.Native;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Protocol;

namespace MicroVm.VirtioFs.Inodes;

/// <summary>Opens two inodes through one mount, for rename(2) and link(2), which do not cross mounts. Any thread.</summary>
internal sealed class CommonMount(InodeStore store, InodeOpener opener)
{
    private const int MostBetween = 256;

    /// <summary>
    /// Whether two inodes lie below one folder that the guest knows. What does not, lies below different exports, between
    /// which nothing is moved or linked.
    /// </summary>
    public bool AreTogether(in InodePin first, in InodePin second)
    {
        lock (store.Gate)
        {
            return store.Tree.CommonFolder(first.Index, second.Index) != InodeEntry.None;
        }
    }

    /// <summary>
    /// Opens two inodes once more by way of a folder above both, that is, through one mount: rename and link do not cross
    /// mounts, and an inode of two exports is open through that of one of them.
    /// </summary>
    /// <returns>False when no folder is above both, a name leads to something else, or no descriptor is free.</returns>
    public bool TryOpenTogether(in InodePin first, in InodePin second, out int firstFd, out int secondFd)
    {
        firstFd = secondFd = InodeEntry.None;
        int common;
        lock (store.Gate)
        {
            common = store.Tree.CommonFolder(first.Index, second.Index);
            if (common == InodeEntry.None)
            {
                return false;
            }

            store.Slots.Entry(common).Pins++;
        }

        if (!opener.TryOpenPinned(common, out InodePin pin))
        {
            return false;
        }

        using InodePin pinned = pin;
        firstFd = OpenBelow(pin, first);
        secondFd = firstFd < 0 ? InodeEntry.None : OpenBelow(pin, second);
        if (secondFd >= 0)
        {
            return true;
        }

        store.Close(ref firstFd);
        return false;
    }

    /// <summary>Closes a descriptor of <see cref="TryOpenTogether"/>.</summary>
    public void CloseOpened(int fd) => store.Close(ref fd);

    /// <summary>Opens an inode below a folder above it, name by name.</summary>
    // Safe: length is at most MostBetween; CopyName fills at most the buffer.
    private unsafe int OpenBelow(in InodePin folder, in InodePin inode)
    {
        int* way = stackalloc int[MostBetween];
        byte* name = stackalloc byte[FuseNames.MaxLength + 1];
        int length = 0;
        lock (store.Gate)
        {
            for (int at = inode.Index; at != folder.Index; at = store.Slots.Entry(at).Parent)
            {
                if (at == InodeEntry.None || length == MostBetween)
                {
                    length = InodeEntry.None;
                    break;
                }

                way[length++] = at;
            }

            for (int i = 0; i < length; i++)
            {
                store.Slots.Entry(way[i]).Pins++; // keeps the entry and its name's memory
            }
        }

        if (length < 0)
        {
            return InodeEntry.None;
        }

        int fd = folder.Fd;
        bool owned = store.TryTake();
        for (int i = length - 1; i >= 0; i--)
        {
            lock (store.Gate)
            {
                InodeTree.CopyName(store.Slots.Entry(way[i]).Name, name);
            }

            int next = owned && fd >= 0 ? HostInode.OpenBeneath(fd, name, Libc.O_PATH, 0) : InodeEntry.None;
            if (fd >= 0 && fd != folder.Fd)
            {
                _ = Libc.close(fd);
            }

            fd = next;
            store.Unpin(way[i]);
        }

        if (length == 0)
        {
            fd = owned ? Libc.fcntl(folder.Fd, Libc.F_DUPFD_CLOEXEC, 0) : InodeEntry.None;
        }

        if (fd < 0 && owned)
        {
            store.Budget.Give();
        }

        if (fd >= 0 && HostInode.Stat(fd, HostInode.StatMask, out Libc.statx_t stat) == 0
            && stat.stx_ino == inode.Key.Number && InodeKey.DeviceOf(stat) == inode.Key.Device)
        {
            return fd;
        }

        store.Close(ref fd);
        return InodeEntry.None;
    }
}
