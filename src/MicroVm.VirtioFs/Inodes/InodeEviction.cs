using MicroVm.Linux.Native;

namespace MicroVm.VirtioFs.Inodes;

/// <summary>Makes room in a full table. Called with the gate held.</summary>
internal sealed class InodeEviction(InodeStore store)
{
    private const int MostProbes = 4096;
    private int _hand;

    /// <summary>
    /// Takes one entry out. Of those that nothing needs, files go first, which the guest looks up again by their
    /// names. Never <paramref name="kept"/>, sockets or FIFOs.
    /// </summary>
    public bool TryEvict(int kept)
    {
        int folder = InodeEntry.None;
        for (int i = 0; i < MostProbes; i++)
        {
            _hand = _hand + 1 < store.Slots.HighWater ? _hand + 1 : 0;
            if (!store.Slots.IsUsed(_hand) || _hand == kept)
            {
                continue;
            }

            ref InodeEntry e = ref store.Slots.Entry(_hand);
            if (e.Pins > 0 || e.Opens > 0 || e.Children > 0 || e.Export != InodeEntry.None || e.IsWatched)
            {
                continue;
            }

            if (e.Type is Libc.S_IFREG or Libc.S_IFLNK)
            {
                Evict(_hand);
                return true;
            }

            folder = e.Type == Libc.S_IFDIR ? _hand : folder;
        }

        if (folder != InodeEntry.None)
        {
            Evict(folder);
        }

        return folder != InodeEntry.None;
    }

    private void Evict(int index)
    {
        int parent = store.Slots.Entry(index).Parent;
        store.Remove(index);
        store.RemoveIfUnused(parent);
    }
}
