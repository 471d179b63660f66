using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Descriptors;
using MicroVm.VirtioFs.HostFiles;

namespace MicroVm.VirtioFs.Inodes;

/// <summary>
/// The entries of inodes with what finds them: keys, names, idle descriptors. An entry stays as long as the guest refers to it, a request has it
/// pinned, or another entry is below it. Methods are called with the gate held, unless they say otherwise.
/// </summary>
internal sealed class InodeStore : FdTable<InodeEntry>
{
    private const uint FirstId = 2; // 1 is FUSE_ROOT_ID, which has no entry

    /// <summary>Makes an empty store.</summary>
    /// <param name="budget">What its descriptors count against.</param>
    public InodeStore(FdBudget budget)
        : base(FirstId, budget)
    {
        Keys = new InodeKeys(Slots);
        Tree = new InodeTree(Slots);
        Idle = new IdleDescriptors(Slots, budget.MostIdle);
    }

    /// <summary>Entries by their keys.</summary>
    public InodeKeys Keys { get; }

    /// <summary>Names and parents.</summary>
    public InodeTree Tree { get; }

    /// <summary>Entries whose descriptors may be closed.</summary>
    public IdleDescriptors Idle { get; }

    /// <summary>Called with the node id of a socket that the guest knows no more, or whose export is gone.</summary>
    public Action<ulong>? SocketClosed { get; set; }

    /// <summary>Notes the name that leads to an entry now (<see cref="InodeTree.SetName"/>).</summary>
    // Safe: the name is passed on, not followed.
    public unsafe void SetName(int index, int parent, byte* name) => RemoveIfUnused(Tree.SetName(index, parent, name));

    /// <summary>The entry of the inode that a name leads to.</summary>
    /// <param name="key">By statx(2) of the name; its link is 0.</param>
    /// <param name="stat">What statx(2) said.</param>
    /// <param name="isOverlay">The name is on an overlay.</param>
    /// <param name="parent">The folder, or <see cref="FreshInode.Place"/>.</param>
    /// <param name="name">The name.</param>
    /// <param name="namesake">An entry of that number and another name, which may be the same inode or not.</param>
    // Safe: the name is passed on, not followed.
    public unsafe int Find(in InodeKey key, in Libc.statx_t stat, bool isOverlay, int parent, byte* name, out int namesake)
    {
        namesake = InodeEntry.None;
        bool mayBeSeparate = isOverlay && stat.stx_nlink > 1 && (stat.stx_mode & Libc.S_IFMT) != Libc.S_IFDIR;
        if (mayBeSeparate)
        {
            int separate = Keys.Find(key with { Link = InodeTree.HashName(parent, name) }, stat);
            if (separate >= 0 && Tree.HasName(separate, parent, name))
            {
                return separate;
            }
        }

        int index = Keys.Find(key, stat);
        if (index < 0 || !mayBeSeparate || Slots.Entry(index).Links == LinkKind.Same || Tree.HasName(index, parent, name))
        {
            return index;
        }

        namesake = index;
        return InodeEntry.None;
    }

    /// <summary>Gives the guest one more reference to an entry, and notes the name that led there.</summary>
    /// <returns>Its node id.</returns>
    // Safe: the name is passed on, not followed.
    public unsafe ulong Reference(int index, int parent, byte* name)
    {
        ref InodeEntry e = ref Slots.Entry(index);
        if (e.References != ulong.MaxValue)
        {
            e.References++;
        }

        e.Doubter = 0;
        SetName(index, parent, name);
        return Slots.IdOf(index);
    }

    /// <summary>Takes an entry out that nothing needs any more, and the folders above that only it needed.</summary>
    public void RemoveIfUnused(int index)
    {
        while (index != InodeEntry.None)
        {
            ref InodeEntry e = ref Slots.Entry(index);
            if (e.References > 0 || e.Pins > 0 || e.Children > 0)
            {
                return;
            }

            int parent = e.Parent;
            Remove(index);
            index = parent;
        }
    }

    /// <summary>Takes an entry out, and from among its parent's children.</summary>
    public void Remove(int index)
    {
        Keys.Remove(index);
        CloseEntry(index);
        Tree.Remove(index);
        Slots.Remove(index);
    }

    /// <summary>Closes an entry's descriptor; what was bound to its socket ends.</summary>
    public void CloseEntry(int index)
    {
        Idle.Remove(index);
        Close(ref Slots.Entry(index).Fd);
        if (Slots.Entry(index).Type == Libc.S_IFSOCK)
        {
            SocketClosed?.Invoke(Slots.IdOf(index));
        }
    }

    /// <summary>Gives a pinned entry back. Takes the gate.</summary>
    public void Unpin(int index)
    {
        lock (Gate)
        {
            ref InodeEntry e = ref Slots.Entry(index);
            e.Pins--;
            if (e.Pins == 0)
            {
                if (e.IsClosing)
                {
                    CloseEntry(index);
                    Monitor.PulseAll(Gate);
                }

                RemoveIfUnused(index);
            }
        }
    }

    /// <summary>Takes a unit of the budget for a descriptor; where none is left, that of an idle inode, which is closed. Takes the gate.</summary>
    public bool TryTake()
    {
        if (Budget.TryTake())
        {
            return true;
        }

        int victim;
        lock (Gate)
        {
            victim = Idle.TakeVictim();
        }

        Close(ref victim);
        return Budget.TryTake();
    }

    /// <inheritdoc/>
    protected override bool CloseIfUnreachable(int index)
    {
        ref InodeEntry e = ref Slots.Entry(index);
        if (!e.IsClosing && Tree.IsReachable(index))
        {
            return true;
        }

        e.IsClosing = true;
        Keys.Remove(index);
        if (e.Pins > 0)
        {
            return false;
        }

        CloseEntry(index);
        return true;
    }

    /// <inheritdoc/>
    protected override void Drop(int index)
    {
        ref InodeEntry e = ref Slots.Entry(index);
        e.References = 0;
        e.Opens = 0;
        RemoveIfUnused(index);
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        base.Dispose();
        Keys.Dispose();
        Idle.Dispose();
    }
}
