using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Descriptors;
using MicroVm.VirtioFs.Inodes;

namespace MicroVm.VirtioFs.Handles;

/// <summary>The guest's open files. A handle is valid only together with the inode that it was opened on.</summary>
internal sealed class HandleTable : FdTable<HandleTable.Entry>
{
    private const uint FirstId = 1; // 0 is what a request that forgot its handle carries
    private readonly InodeTable _inodes;
    private int _reserved;

    /// <summary>Makes an empty table whose descriptors count against <paramref name="budget"/>.</summary>
    /// <param name="budget">The budget, which also bounds the number of handles.</param>
    /// <param name="inodes">What the handles are open on.</param>
    public HandleTable(FdBudget budget, InodeTable inodes)
        : base(FirstId, budget) => _inodes = inodes;

    /// <summary>
    /// Takes a place and a unit of the budget for a handle, whether it will have a descriptor or not: both bound what the
    /// host's memory is used for.
    /// </summary>
    /// <returns>False at the bound: ENFILE.</returns>
    public bool TryReserve()
    {
        if (Interlocked.Increment(ref _reserved) <= Budget.MostHandles && _inodes.TryTake())
        {
            return true;
        }

        Interlocked.Decrement(ref _reserved);
        return false;
    }

    /// <summary>Gives back what <see cref="TryReserve"/> took, when there will be no handle.</summary>
    public void Release()
    {
        Budget.Give();
        Interlocked.Decrement(ref _reserved);
    }

    /// <summary>Adds a handle for which a place was reserved; takes over <paramref name="fd"/> (-1 for the root).</summary>
    /// <returns>Its id for the guest.</returns>
    public ulong Add(ulong nodeId, HandleKind kind, int fd, int flags)
    {
        lock (Gate)
        {
            int index = Slots.Add();
            ref Entry e = ref Slots.Entry(index);
            e.NodeId = nodeId;
            e.Kind = kind;
            e.Fd = fd;
            e.Flags = flags;
            return Slots.IdOf(index);
        }
    }

    /// <summary>Lends a handle's descriptor until the pin is disposed of.</summary>
    /// <returns>False when there is no such handle, it is of another inode or kind, or its export was removed.</returns>
    public bool TryPin(ulong handle, ulong nodeId, HandleKind kind, out HandlePin pin)
    {
        pin = default;
        lock (Gate)
        {
            int index = Slots.Find(handle);
            if (index < 0)
            {
                return false;
            }

            ref Entry e = ref Slots.Entry(index);
            if (e.NodeId != nodeId || e.Kind != kind || e.IsClosing)
            {
                return false;
            }

            e.Pins++;
            pin = new HandlePin(this, index, e.Fd, e.Flags);
            return true;
        }
    }

    /// <summary>Closes a handle, after the requests that use it.</summary>
    /// <returns>False when there is no such handle, or it is of another inode or kind.</returns>
    public bool Remove(ulong handle, ulong nodeId, bool directory)
    {
        lock (Gate)
        {
            int index = Slots.Find(handle);
            if (index < 0)
            {
                return false;
            }

            ref Entry e = ref Slots.Entry(index);
            if (e.NodeId != nodeId || e.IsReleased || (e.Kind is HandleKind.Directory or HandleKind.Root) != directory)
            {
                return false;
            }

            Drop(index);
            return true;
        }
    }

    internal void Unpin(int index)
    {
        lock (Gate)
        {
            ref Entry e = ref Slots.Entry(index);
            e.Pins--;
            if (e.IsClosing && e.Pins == 0)
            {
                CloseIfUnused(index);
                Monitor.PulseAll(Gate);
            }
        }
    }

    /// <inheritdoc/>
    protected override bool CloseIfUnreachable(int index)
    {
        ref Entry e = ref Slots.Entry(index);
        if (e.Kind == HandleKind.Root || (!e.IsClosing && _inodes.Names.IsReachable(e.NodeId)))
        {
            return true;
        }

        e.IsClosing = true;
        bool used = e.Pins > 0;
        CloseIfUnused(index);
        return !used;
    }

    /// <inheritdoc/>
    protected override void Drop(int index)
    {
        ref Entry e = ref Slots.Entry(index);
        e.IsReleased = true;
        e.IsClosing = true;
        CloseIfUnused(index);
    }

    private void CloseIfUnused(int index)
    {
        ref Entry e = ref Slots.Entry(index);
        if (e.Pins > 0)
        {
            return;
        }

        if (e.Fd >= 0)
        {
            _ = Libc.close(e.Fd);
            e.Fd = -1;
            _inodes.RemoveOpen(e.NodeId);
        }

        if (e.IsReleased)
        {
            Slots.Remove(index);
            Release();
        }
    }

    /// <summary>An open file.</summary>
    internal struct Entry
    {
        public ulong NodeId;
        public int Fd;
        public int Flags;
        public int Pins;
        public HandleKind Kind;
        public bool IsClosing;
        public bool IsReleased;
    }
}
