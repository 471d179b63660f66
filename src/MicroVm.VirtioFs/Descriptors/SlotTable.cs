using System.Runtime.InteropServices;

namespace MicroVm.VirtioFs.Descriptors;

/// <summary>
/// Entries in unmanaged memory that a guest names by 64-bit ids. An id holds its slot's generation, so an id that was
/// given back never means another entry; a forged one is found out. Not thread-safe: its owner locks.
/// </summary>
/// <typeparam name="T">The entry.</typeparam>
internal sealed class SlotTable<T> : IDisposable
    where T : unmanaged
{
    private const int InitialSlots = 64;
    private const int NoSlot = -1;
    private readonly uint _firstId;
    private unsafe Slot* _slots;
    private int _capacity;
    private int _used;
    private int _free = NoSlot;

    /// <summary>Makes an empty table whose first id is <paramref name="firstId"/>.</summary>
    public SlotTable(uint firstId) => _firstId = firstId;

    // Safe: frees what Add made, once.
    unsafe ~SlotTable() => NativeMemory.Free(_slots);

    /// <summary>Number of entries.</summary>
    public int Count { get; private set; }

    /// <summary>One past the highest index ever used: for walking all slots with <see cref="IsUsed"/>.</summary>
    public int HighWater => _used;

    /// <summary>Adds a zeroed entry.</summary>
    // Safe: an index is below _capacity, for which there is room.
    public unsafe int Add()
    {
        int index = _free;
        if (index != NoSlot)
        {
            _free = _slots[index].NextFree;
        }
        else
        {
            if (_used == _capacity)
            {
                _capacity = Math.Max(InitialSlots, checked(_capacity * 2));
                _slots = (Slot*)NativeMemory.Realloc(_slots, (nuint)_capacity * (nuint)sizeof(Slot));
            }

            index = _used++;
            _slots[index] = default;
        }

        _slots[index].InUse = true;
        _slots[index].Value = default;
        Count++;
        return index;
    }

    /// <summary>Takes an entry out; its id is dead from now on.</summary>
    // Safe: callers have the index of an entry, which is below _used.
    public unsafe void Remove(int index)
    {
        Slot* slot = _slots + index;
        slot->InUse = false;
        Count--;

        // A slot whose generations are used up is retired: an id must not come round again.
        if (slot->Generation != uint.MaxValue)
        {
            slot->Generation++;
            slot->NextFree = _free;
            _free = index;
        }
    }

    /// <summary>The id of an entry.</summary>
    // Safe: as for Remove.
    public unsafe ulong IdOf(int index) => ((ulong)_slots[index].Generation << 32) | ((uint)index + _firstId);

    /// <summary>The slot that <paramref name="id"/> names; -1 when it names none.</summary>
    // Safe: the index is compared with _used before the slot is read.
    public unsafe int Find(ulong id)
    {
        uint index = (uint)id - _firstId;
        return index < (uint)_used && _slots[index].InUse && _slots[index].Generation == (uint)(id >> 32) ? (int)index : NoSlot;
    }

    /// <summary>The entry in a slot in use; valid until the next <see cref="Add"/>.</summary>
    // Safe: as for Remove; the reference ends before the next Add.
    public unsafe ref T Entry(int index) => ref _slots[index].Value;

    /// <summary>The slot has an entry.</summary>
    // Safe: callers have an index below HighWater.
    public unsafe bool IsUsed(int index) => _slots[index].InUse;

    /// <inheritdoc/>
    // Safe: frees what Add made; the pointer is null afterwards.
    public unsafe void Dispose()
    {
        NativeMemory.Free(_slots);
        _slots = null;
        _capacity = _used = Count = 0;
        _free = NoSlot;
        GC.SuppressFinalize(this);
    }

    private struct Slot
    {
        public uint Generation;
        public int NextFree;
        public bool InUse;
        public T Value;
    }
}
