using MicroVm.Linux.Native;
using MicroVm.VirtioFs.HostFiles;

namespace MicroVm.VirtioFs.Inodes;

/// <summary>Adds inodes that were just opened, or finds out that they are in the table already.</summary>
internal sealed class InodeArrivals(InodeStore store, InodeOpener opener, int mostEntries)
{
    private readonly InodeEviction _eviction = new(store);

    /// <summary>
    /// Lends the inode in the table that has the number of <paramref name="fresh"/> but another name, where only an
    /// attempt can tell whether both are one (<see cref="OverlayLinks"/>).
    /// </summary>
    /// <returns>False when there is none: <see cref="Insert"/> needs no attempt.</returns>
    // Safe: the name is passed on, not followed.
    public unsafe bool TryPinNamesake(scoped in FreshInode fresh, out InodePin pin)
    {
        int candidate;
        lock (store.Gate)
        {
            pin = default;
            if (store.Find(fresh.Key, fresh.Stat, fresh.IsOverlay, fresh.Place, fresh.Name, out candidate) >= 0 || candidate < 0
                || store.Slots.Entry(candidate).Links != LinkKind.Unknown)
            {
                return false;
            }

            store.Slots.Entry(candidate).Pins++;
        }

        return opener.TryOpenPinned(candidate, out pin);
    }

    /// <summary>
    /// Adds an inode with one reference. Takes over the descriptor and the budget's unit for it, also when the inode turns
    /// out to be there already.
    /// </summary>
    /// <param name="fresh">The inode.</param>
    /// <param name="links">What an attempt showed of it and the one with its number in the table.</param>
    /// <returns>Its node id, 0 when there is no room for it.</returns>
    // Safe: the name is passed on, not followed.
    public unsafe ulong Insert(in FreshInode fresh, LinkKind links = LinkKind.Separate)
    {
        int fd = fresh.Fd;
        ulong node;
        int victim = InodeEntry.None;
        lock (store.Gate)
        {
            int index = store.Find(fresh.Key, fresh.Stat, fresh.IsOverlay, fresh.Place, fresh.Name, out int namesake);
            if (namesake >= 0)
            {
                store.Slots.Entry(namesake).Links = links;
                index = links == LinkKind.Same ? namesake : InodeEntry.None;
            }

            if (index >= 0)
            {
                ref InodeEntry known = ref store.Slots.Entry(index);
                if (fresh.Export != InodeEntry.None && known.Export == InodeEntry.None)
                {
                    store.Idle.Remove(index);
                    known.Export = fresh.Export;
                }

                if (known.Fd < 0)
                {
                    known.Fd = fd;
                    known.MountId = fresh.MountId;
                    fd = InodeEntry.None;
                    victim = store.Idle.Add(index);
                }

                node = store.Reference(index, fresh.Parent, fresh.Name);
            }
            else
            {
                InodeKey key = fresh.Key;
                if (namesake >= 0)
                {
                    key = key with { Link = InodeTree.HashName(fresh.Place, fresh.Name) };
                }

                index = Add(key, fresh);
                fd = index < 0 ? fd : InodeEntry.None;
                victim = index < 0 ? InodeEntry.None : store.Idle.Add(index);
                node = index < 0 ? 0 : store.Slots.IdOf(index);
            }
        }

        store.Close(ref fd);
        store.Close(ref victim);
        return node;
    }

    // Safe: the name is passed on, not followed.
    private unsafe int Add(in InodeKey key, in FreshInode fresh)
    {
        if (store.Slots.Count >= mostEntries && !_eviction.TryEvict(fresh.Parent))
        {
            return InodeEntry.None;
        }

        store.Keys.MakeRoom();
        int index = store.Slots.Add();
        ref InodeEntry e = ref store.Slots.Entry(index);
        e.Key = key;
        e.Fd = fresh.Fd;
        e.MountId = fresh.MountId;
        e.Type = fresh.Stat.stx_mode & Libc.S_IFMT;
        e.Birth = InodeEntry.BirthOf(fresh.Stat);
        e.IsOverlay = fresh.IsOverlay;
        e.Export = fresh.Export;
        e.Parent = InodeEntry.None;
        e.Slot = InodeEntry.None;
        e.References = 1;
        store.Keys.Add(index);
        store.SetName(index, fresh.Parent, fresh.Name);
        return index;
    }
}
