using System.Runtime.InteropServices;
using MicroVm.Linux.Native;

namespace MicroVm.Vmm.Fs;

/// <summary>
/// The inodes that the guest's kernel holds references to, each with an O_PATH descriptor that pins the host's inode,
/// so that its (device, number) cannot be given to another file while it is in the table.
/// </summary>
/// <remarks>
/// Any thread; every method is a short critical section. Descriptors are kept as numbers in unmanaged memory, not as
/// <see cref="Linux.SafeFd"/>: a guest looks up tens of thousands of files, and each would be a finalisable object. The
/// table owns them; <see cref="TryPin"/> lends one for the length of a request.
/// </remarks>
internal sealed unsafe class InodeTable : IDisposable
{
    private const uint FirstId = 2; // 1 is FUSE_ROOT_ID, which has no entry
    private const int None = -1;
    private readonly object _lock = new();
    private readonly FdBudget _budget;
    private readonly SlotTable<Entry> _slots = new(FirstId);
    private int* _buckets;
    private int _bucketMask;

    /// <summary>Makes an empty table whose descriptors count against <paramref name="budget"/>.</summary>
    public InodeTable(FdBudget budget)
    {
        _budget = budget;
        Rehash(256);
    }

    ~InodeTable() => NativeMemory.Free(_buckets);

    /// <summary>Number of inodes.</summary>
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

    /// <summary>Gives the guest one more reference to an inode that it may know already.</summary>
    /// <returns>Its node id, or 0 when it is not in the table.</returns>
    public ulong AddReference(in InodeKey key)
    {
        lock (_lock)
        {
            int index = FindKey(key);
            return index == None ? 0 : Reference(index);
        }
    }

    /// <summary>
    /// Adds an inode with one reference. Takes over <paramref name="fd"/> and the budget's unit for it, also when the
    /// inode turns out to be there already.
    /// </summary>
    public ulong Insert(in InodeKey key, int fd, uint type, bool isExportRoot)
    {
        lock (_lock)
        {
            int index = FindKey(key);
            if (index != None)
            {
                _ = Libc.close(fd);
                _budget.Give();
                return Reference(index);
            }

            if (_slots.Count > _bucketMask)
            {
                Rehash((_bucketMask + 1) * 2);
            }

            index = _slots.Add();
            Entry* e = _slots.Entry(index);
            e->Key = key;
            e->Fd = fd;
            e->Type = type;
            e->IsExportRoot = isExportRoot;
            e->References = 1;
            int* bucket = Bucket(key);
            e->Next = *bucket;
            *bucket = index;
            return _slots.IdOf(index);
        }
    }

    /// <summary>Lends an inode's descriptor until the pin is disposed of.</summary>
    /// <returns>False when <paramref name="nodeId"/> names no inode, or its export was removed.</returns>
    public bool TryPin(ulong nodeId, out InodePin pin)
    {
        lock (_lock)
        {
            int index = _slots.Find(nodeId);
            Entry* e = index < 0 ? null : _slots.Entry(index);
            if (e is null || e->Fd < 0 || e->References == 0)
            {
                pin = default;
                return false;
            }

            e->Pins++;
            pin = new InodePin(this, nodeId, index, e->Fd, e->Type, e->Key, e->IsExportRoot);
            return true;
        }
    }

    /// <summary>Takes back <paramref name="count"/> references; more than there are takes all. Unknown ids are ignored.</summary>
    public void Forget(ulong nodeId, ulong count)
    {
        lock (_lock)
        {
            int index = _slots.Find(nodeId);
            if (index < 0)
            {
                return;
            }

            Entry* e = _slots.Entry(index);
            e->References = count >= e->References ? 0 : e->References - count;
            RemoveIfUnused(index);
        }
    }

    /// <summary>
    /// Closes the descriptors of an export's inodes. Their ids stay known to be dead until the guest forgets them.
    /// </summary>
    /// <param name="export">The export's number.</param>
    /// <param name="timeoutMilliseconds">How long to wait for requests that have one in use.</param>
    /// <returns>False when such a request went on for longer; it closes the descriptor at its end.</returns>
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
                    if (e is null || e->Key.Export != export)
                    {
                        continue;
                    }

                    e->IsClosing = true;
                    busy |= e->Pins > 0;
                    CloseIfUnpinned(e);
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

    /// <summary>Drops every inode, as when the guest unmounts. None may be pinned.</summary>
    public void Clear()
    {
        lock (_lock)
        {
            for (int i = 0; i < _slots.HighWater; i++)
            {
                Entry* e = _slots.At(i);
                if (e is not null)
                {
                    e->References = 0;
                    RemoveIfUnused(i);
                }
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Clear();
        _slots.Dispose();
        NativeMemory.Free(_buckets);
        _buckets = null;
        GC.SuppressFinalize(this);
    }

    internal void Unpin(int index)
    {
        lock (_lock)
        {
            Entry* e = _slots.Entry(index);
            e->Pins--;
            if (e->Pins == 0)
            {
                if (e->IsClosing)
                {
                    CloseIfUnpinned(e);
                    Monitor.PulseAll(_lock);
                }

                RemoveIfUnused(index);
            }
        }
    }

    private ulong Reference(int index)
    {
        Entry* e = _slots.Entry(index);
        if (e->References != ulong.MaxValue)
        {
            e->References++;
        }

        return _slots.IdOf(index);
    }

    private int FindKey(in InodeKey key)
    {
        for (int i = *Bucket(key); i != None; i = _slots.Entry(i)->Next)
        {
            Entry* e = _slots.Entry(i);
            if (e->Key.Equals(key) && e->Fd >= 0 && !e->IsClosing)
            {
                return i;
            }
        }

        return None;
    }

    private void RemoveIfUnused(int index)
    {
        Entry* e = _slots.Entry(index);
        if (e->References > 0 || e->Pins > 0)
        {
            return;
        }

        int* link = Bucket(e->Key);
        while (*link != index)
        {
            link = &_slots.Entry(*link)->Next;
        }

        *link = e->Next;
        CloseIfUnpinned(e);
        _slots.Remove(index);
    }

    private void CloseIfUnpinned(Entry* e)
    {
        if (e->Fd >= 0 && e->Pins == 0)
        {
            _ = Libc.close(e->Fd);
            e->Fd = -1;
            _budget.Give();
        }
    }

    private int* Bucket(in InodeKey key) => _buckets + (key.GetHashCode() & _bucketMask);

    private void Rehash(int size)
    {
        _buckets = (int*)NativeMemory.Realloc(_buckets, (nuint)size * sizeof(int));
        _bucketMask = size - 1;
        new Span<int>(_buckets, size).Fill(None);
        for (int i = 0; i < _slots.HighWater; i++)
        {
            Entry* e = _slots.At(i);
            if (e is not null)
            {
                int* bucket = Bucket(e->Key);
                e->Next = *bucket;
                *bucket = i;
            }
        }
    }

    private struct Entry
    {
        public InodeKey Key;
        public ulong References;
        public int Fd;
        public uint Type;
        public int Next;
        public int Pins;
        public bool IsExportRoot;
        public bool IsClosing;
    }
}
