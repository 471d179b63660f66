using System.Runtime.InteropServices;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Descriptors;

namespace MicroVm.VirtioFs.Inodes;

/// <summary>Finds entries by their <see cref="InodeKey"/>: a hash table whose chains go through the entries. Its owner locks.</summary>
internal sealed class InodeKeys : IDisposable
{
    private readonly SlotTable<InodeEntry> _slots;
    private unsafe int* _buckets;
    private int _bucketMask;

    /// <summary>Makes an empty table of entries in <paramref name="slots"/>.</summary>
    public InodeKeys(SlotTable<InodeEntry> slots)
    {
        _slots = slots;
        Rehash(256);
    }

    // Safe: frees what Rehash made, once.
    unsafe ~InodeKeys() => NativeMemory.Free(_buckets);

    /// <summary>Keeps chains short when there is to be one entry more.</summary>
    public void MakeRoom()
    {
        if (_slots.Count > _bucketMask)
        {
            Rehash((_bucketMask + 1) * 2);
        }
    }

    /// <summary>The entry of an inode; <see cref="InodeEntry.None"/> when there is none.</summary>
    /// <param name="key">Which inode, by statx(2).</param>
    /// <param name="stat">What statx(2) said: another inode that has got the number is found out by it.</param>
    public int Find(in InodeKey key, in Libc.statx_t stat)
    {
        for (int i = Bucket(key); i != InodeEntry.None;)
        {
            ref InodeEntry e = ref _slots.Entry(i);
            int next = e.Next;
            if (e.Key == key)
            {
                if (e.Fd >= 0 || e.IsBornWith(stat))
                {
                    return i;
                }

                // Its number was given to another inode, so that it is gone from the host.
                Remove(i);
            }

            i = next;
        }

        return InodeEntry.None;
    }

    /// <summary>Adds an entry by the key that it has.</summary>
    public void Add(int index)
    {
        ref InodeEntry e = ref _slots.Entry(index);
        ref int bucket = ref Bucket(e.Key);
        e.Next = bucket;
        e.IsHashed = true;
        bucket = index;
    }

    /// <summary>Takes an entry out, if it is in.</summary>
    public void Remove(int index)
    {
        ref InodeEntry e = ref _slots.Entry(index);
        if (!e.IsHashed)
        {
            return;
        }

        ref int link = ref Bucket(e.Key);
        while (link != index)
        {
            link = ref _slots.Entry(link).Next;
        }

        link = e.Next;
        e.IsHashed = false;
    }

    /// <inheritdoc/>
    // Safe: frees what Rehash made; the pointer is null afterwards.
    public unsafe void Dispose()
    {
        NativeMemory.Free(_buckets);
        _buckets = null;
        GC.SuppressFinalize(this);
    }

    // Safe: the mask keeps the index within the table.
    private unsafe ref int Bucket(in InodeKey key) => ref _buckets[key.GetHashCode() & _bucketMask];

    // Safe: the area has size buckets, all of which are filled.
    private unsafe void Rehash(int size)
    {
        _buckets = (int*)NativeMemory.Realloc(_buckets, (nuint)size * sizeof(int));
        _bucketMask = size - 1;
        new Span<int>(_buckets, size).Fill(InodeEntry.None);
        for (int i = 0; i < _slots.HighWater; i++)
        {
            if (_slots.IsUsed(i) && _slots.Entry(i).IsHashed)
            {
                Add(i);
            }
        }
    }
}
