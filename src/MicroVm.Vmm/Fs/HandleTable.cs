using MicroVm.Linux.Native;

namespace MicroVm.Vmm.Fs;

/// <summary>What a file handle is open on.</summary>
internal enum HandleKind : byte
{
    /// <summary>A regular file.</summary>
    File,

    /// <summary>A host directory.</summary>
    Directory,

    /// <summary>The synthesised root directory; it has no descriptor.</summary>
    Root,
}

/// <summary>The guest's open files. A handle is valid only together with the inode that it was opened on.</summary>
/// <remarks>Any thread. Owns its descriptors, as <see cref="InodeTable"/> does and for the same reason.</remarks>
internal sealed unsafe class HandleTable : IDisposable
{
    private const uint FirstId = 1; // 0 is what a request that forgot its handle carries
    private readonly object _lock = new();
    private readonly FdBudget _budget;
    private readonly SlotTable<Entry> _slots = new(FirstId);

    /// <summary>Makes an empty table whose descriptors count against <paramref name="budget"/>.</summary>
    public HandleTable(FdBudget budget) => _budget = budget;

    /// <summary>Number of open handles.</summary>
    public int Count
    {
        get
        {
            lock (_lock)
            {
                return _slots.Count;
            }
        }
    }

    /// <summary>Adds a handle; takes over <paramref name="fd"/> (-1 for the root) and the budget's unit.</summary>
    /// <returns>Its id for the guest.</returns>
    public ulong Add(ulong nodeId, HandleKind kind, int fd, int flags, in InodeKey key)
    {
        lock (_lock)
        {
            int index = _slots.Add();
            Entry* e = _slots.Entry(index);
            e->NodeId = nodeId;
            e->Kind = kind;
            e->Fd = fd;
            e->Flags = flags;
            e->Key = key;
            return _slots.IdOf(index);
        }
    }

    /// <summary>Lends a handle's descriptor until the pin is disposed of.</summary>
    /// <returns>False when there is no such handle, it is of another inode or kind, or its export was removed.</returns>
    public bool TryPin(ulong handle, ulong nodeId, HandleKind kind, out HandlePin pin)
    {
        lock (_lock)
        {
            int index = _slots.Find(handle);
            Entry* e = index < 0 ? null : _slots.Entry(index);
            if (e is null || e->NodeId != nodeId || e->Kind != kind || e->IsClosing)
            {
                pin = default;
                return false;
            }

            e->Pins++;
            pin = new HandlePin(this, index, e->Fd, e->Flags, e->Key);
            return true;
        }
    }

    /// <summary>Closes a handle, after the requests that use it.</summary>
    /// <returns>False when there is no such handle, or it is of another inode or kind.</returns>
    public bool Remove(ulong handle, ulong nodeId, bool directory)
    {
        lock (_lock)
        {
            int index = _slots.Find(handle);
            Entry* e = index < 0 ? null : _slots.Entry(index);
            if (e is null || e->NodeId != nodeId || e->IsReleased || (e->Kind != HandleKind.File) != directory)
            {
                return false;
            }

            e->IsReleased = true;
            e->IsClosing = true;
            CloseIfUnused(index);
            return true;
        }
    }

    /// <summary>Closes the descriptors of an export's handles; see <see cref="InodeTable.CloseExport"/>.</summary>
    public bool CloseExport(int export, int timeoutMilliseconds)
    {
        long deadline = Environment.TickCount64 + timeoutMilliseconds;
        lock (_lock)
        {
            while (true)
            {
                bool busy = false;
                for (int i = 0; i < _slots.HighWater; i++)
                {
                    Entry* e = _slots.At(i);
                    if (e is null || e->Kind == HandleKind.Root || e->Key.Export != export)
                    {
                        continue;
                    }

                    e->IsClosing = true;
                    busy |= e->Pins > 0;
                    CloseIfUnused(i);
                }

                long left = deadline - Environment.TickCount64;
                if (!busy || left <= 0)
                {
                    return !busy;
                }

                Monitor.Wait(_lock, (int)left);
            }
        }
    }

    /// <summary>Closes every handle. None may be pinned.</summary>
    public void Clear()
    {
        lock (_lock)
        {
            for (int i = 0; i < _slots.HighWater; i++)
            {
                Entry* e = _slots.At(i);
                if (e is not null)
                {
                    e->IsReleased = true;
                    e->IsClosing = true;
                    CloseIfUnused(i);
                }
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Clear();
        _slots.Dispose();
    }

    internal void Unpin(int index)
    {
        lock (_lock)
        {
            Entry* e = _slots.Entry(index);
            e->Pins--;
            if (e->IsClosing && e->Pins == 0)
            {
                CloseIfUnused(index);
                Monitor.PulseAll(_lock);
            }
        }
    }

    private void CloseIfUnused(int index)
    {
        Entry* e = _slots.Entry(index);
        if (e->Pins > 0)
        {
            return;
        }

        if (e->Fd >= 0)
        {
            _ = Libc.close(e->Fd);
            e->Fd = -1;
            _budget.Give();
        }

        if (e->IsReleased)
        {
            _slots.Remove(index);
        }
    }

    private struct Entry
    {
        public InodeKey Key;
        public ulong NodeId;
        public int Fd;
        public int Flags;
        public int Pins;
        public HandleKind Kind;
        public bool IsClosing;
        public bool IsReleased;
    }
}

/// <summary>A handle lent to a request: its descriptor stays open until this is disposed of, once.</summary>
internal readonly ref struct HandlePin
{
    private readonly HandleTable? _table;
    private readonly int _index;

    /// <summary>Made by <see cref="HandleTable.TryPin"/>.</summary>
    public HandlePin(HandleTable table, int index, int fd, int flags, in InodeKey key)
    {
        _table = table;
        _index = index;
        Fd = fd;
        Flags = flags;
        Key = key;
    }

    /// <summary>The descriptor, borrowed; -1 for the synthesised root directory.</summary>
    public int Fd { get; }

    /// <summary>The O_* flags that it was opened with on the host.</summary>
    public int Flags { get; }

    /// <summary>What it is open on.</summary>
    public InodeKey Key { get; }

    /// <summary>It can be written to.</summary>
    public bool IsWritable => (Flags & Libc.O_ACCMODE) != Libc.O_RDONLY;

    /// <summary>Gives the handle back.</summary>
    public void Dispose() => _table?.Unpin(_index);
}
