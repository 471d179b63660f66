using System.Runtime.InteropServices;
using MicroVm.Linux.Native;

namespace MicroVm.Vmm.Fs;

/// <summary>
/// The inodes that the guest's kernel holds references to, each with an O_PATH descriptor that pins the host's inode,
/// so that its (device, number) cannot be given to another file while it is in the table.
/// </summary>
internal sealed unsafe class InodeTable : FdTable<InodeTable.Entry>
{
    private const uint FirstId = 2; // 1 is FUSE_ROOT_ID, which has no entry
    private const int None = -1;
    private int* _buckets;
    private int _bucketMask;

    /// <summary>Makes an empty table whose descriptors count against <paramref name="budget"/>.</summary>
    public InodeTable(FdBudget budget)
        : base(FirstId, budget) => Rehash(256);

    ~InodeTable() => NativeMemory.Free(_buckets);

    /// <summary>Gives the guest one more reference to an inode that it may know already.</summary>
    /// <returns>Its node id, or 0 when it is not in the table.</returns>
    public ulong AddReference(in InodeKey key)
    {
        lock (Gate)
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
        lock (Gate)
        {
            int index = FindKey(key);
            if (index != None)
            {
                Close(ref fd);
                return Reference(index);
            }

            if (Slots.Count > _bucketMask)
            {
                Rehash((_bucketMask + 1) * 2);
            }

            index = Slots.Add();
            Entry* e = Slots.Entry(index);
            e->Key = key;
            e->Fd = fd;
            e->Type = type;
            e->IsExportRoot = isExportRoot;
            e->References = 1;
            int* bucket = Bucket(key);
            e->Next = *bucket;
            *bucket = index;
            return Slots.IdOf(index);
        }
    }

    /// <summary>Lends an inode's descriptor until the pin is disposed of.</summary>
    /// <returns>False when <paramref name="nodeId"/> names no inode, or its export was removed.</returns>
    public bool TryPin(ulong nodeId, out InodePin pin)
    {
        lock (Gate)
        {
            int index = Slots.Find(nodeId);
            Entry* e = index < 0 ? null : Slots.Entry(index);
            if (e is null || e->IsClosing || e->References == 0)
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
        lock (Gate)
        {
            int index = Slots.Find(nodeId);
            if (index < 0)
            {
                return;
            }

            Entry* e = Slots.Entry(index);
            e->References = count >= e->References ? 0 : e->References - count;
            RemoveIfUnused(index);
        }
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        base.Dispose();
        NativeMemory.Free(_buckets);
        _buckets = null;
        GC.SuppressFinalize(this);
    }

    internal void Unpin(int index)
    {
        lock (Gate)
        {
            Entry* e = Slots.Entry(index);
            e->Pins--;
            if (e->Pins == 0)
            {
                if (e->IsClosing)
                {
                    Close(ref e->Fd);
                    Monitor.PulseAll(Gate);
                }

                RemoveIfUnused(index);
            }
        }
    }

    /// <inheritdoc/>
    protected override bool CloseIfOf(int export, int index)
    {
        Entry* e = Slots.Entry(index);
        if (e->Key.Export != export)
        {
            return true;
        }

        e->IsClosing = true;
        if (e->Pins > 0)
        {
            return false;
        }

        Close(ref e->Fd);
        return true;
    }

    /// <inheritdoc/>
    protected override void Drop(int index)
    {
        Slots.Entry(index)->References = 0;
        RemoveIfUnused(index);
    }

    private ulong Reference(int index)
    {
        Entry* e = Slots.Entry(index);
        if (e->References != ulong.MaxValue)
        {
            e->References++;
        }

        return Slots.IdOf(index);
    }

    private int FindKey(in InodeKey key)
    {
        for (int i = *Bucket(key); i != None; i = Slots.Entry(i)->Next)
        {
            Entry* e = Slots.Entry(i);
            if (e->Key.Equals(key) && e->Fd >= 0 && !e->IsClosing)
            {
                return i;
            }
        }

        return None;
    }

    private void RemoveIfUnused(int index)
    {
        Entry* e = Slots.Entry(index);
        if (e->References > 0 || e->Pins > 0)
        {
            return;
        }

        int* link = Bucket(e->Key);
        while (*link != index)
        {
            link = &Slots.Entry(*link)->Next;
        }

        *link = e->Next;
        Close(ref e->Fd);
        Slots.Remove(index);
    }

    private int* Bucket(in InodeKey key) => _buckets + (key.GetHashCode() & _bucketMask);

    private void Rehash(int size)
    {
        _buckets = (int*)NativeMemory.Realloc(_buckets, (nuint)size * sizeof(int));
        _bucketMask = size - 1;
        new Span<int>(_buckets, size).Fill(None);
        for (int i = 0; i < Slots.HighWater; i++)
        {
            Entry* e = Slots.At(i);
            if (e is not null)
            {
                int* bucket = Bucket(e->Key);
                e->Next = *bucket;
                *bucket = i;
            }
        }
    }

    /// <summary>An inode that the guest refers to.</summary>
    internal struct Entry
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
