using System.Runtime.InteropServices;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Descriptors;

namespace MicroVm.VirtioFs.Inodes;

/// <summary>
/// Entries that have a descriptor which may be closed: neither exports' roots nor what the guest has open. Their number is bounded; a clock's
/// hand goes round them for the next to be closed. Its owner locks.
/// </summary>
internal sealed class IdleDescriptors : IDisposable
{
    private readonly SlotTable<InodeEntry> _slots;
    private readonly int _most;
    private unsafe int* _entries; // indices of entries in no order; each entry knows its place
    private int _count;
    private int _hand;
    private Action? _notify;
    private bool _isNotified;

    /// <summary>Makes an empty set.</summary>
    /// <param name="slots">The entries.</param>
    /// <param name="most">Most descriptors that may be idle.</param>
    // Safe: the area is ours until Dispose, with room for _most indices.
    public unsafe IdleDescriptors(SlotTable<InodeEntry> slots, int most)
    {
        _slots = slots;
        _most = most;
        _entries = (int*)NativeMemory.Alloc((nuint)most, sizeof(int));
    }

    // Safe: frees what the constructor made, once.
    unsafe ~IdleDescriptors() => NativeMemory.Free(_entries);

    // Safe: the area has _most indices; the span checks each access.
    private unsafe Span<int> Entries => new(_entries, _most);

    /// <summary>How many there are.</summary>
    public int Count => _count;

    /// <summary>Has <paramref name="notify"/> called when the first of files gets a descriptor that may be closed.</summary>
    public void OnFiles(Action? notify)
    {
        _notify = notify;
        _isNotified = false;
    }

    /// <summary>Adds an entry with a descriptor, unless that has to stay open.</summary>
    /// <returns>A descriptor to be closed for it, or <see cref="InodeEntry.None"/>.</returns>
    public int Add(int index)
    {
        ref InodeEntry e = ref _slots.Entry(index);
        if (e.Export != InodeEntry.None || e.Opens > 0 || e.Slot != InodeEntry.None)
        {
            return InodeEntry.None;
        }

        int victim = InodeEntry.None;
        if (_count == _most)
        {
            victim = TakeVictim();
        }

        e.IsRecent = true;
        if (_count < _most)
        {
            e.Slot = _count;
            Entries[_count++] = index;
        }

        if (!_isNotified && _notify is not null && (e.Type is Libc.S_IFREG or Libc.S_IFLNK))
        {
            _isNotified = true;
            _notify();
        }

        return victim;
    }

    /// <summary>Takes an entry out, if it is in.</summary>
    public void Remove(int index)
    {
        ref InodeEntry e = ref _slots.Entry(index);
        if (e.Slot == InodeEntry.None)
        {
            return;
        }

        int last = Entries[--_count];
        Entries[e.Slot] = last;
        _slots.Entry(last).Slot = e.Slot;
        e.Slot = InodeEntry.None;
    }

    /// <summary>Takes the descriptor of an idle entry that was not used lately; the second time round, of any.</summary>
    public int TakeVictim()
    {
        for (int i = 0; i < 3 * _count; i++)
        {
            _hand = _hand + 1 < _count ? _hand + 1 : 0;
            int index = Entries[_hand];
            ref InodeEntry e = ref _slots.Entry(index);
            if (e.Pins == 0 && !e.IsRecent)
            {
                int fd = e.Fd;
                e.Fd = InodeEntry.None;
                Remove(index);
                return fd;
            }

            e.IsRecent = false;
        }

        return InodeEntry.None;
    }

    /// <summary>Takes descriptors of files that were not used since they were last looked through. Folders, sockets and FIFOs keep theirs.</summary>
    /// <param name="closing">Room for the descriptors, which the caller closes.</param>
    /// <param name="position">Where to go on; 0 at first.</param>
    /// <param name="left">Set when there are files that were used.</param>
    /// <returns>How many; 0 at the end.</returns>
    public int TakeUnused(Span<int> closing, ref int position, ref bool left)
    {
        int count = 0;
        while (position < _count && count < closing.Length)
        {
            int index = Entries[position];
            ref InodeEntry e = ref _slots.Entry(index);
            bool isFile = e.Type is Libc.S_IFREG or Libc.S_IFLNK;
            if (isFile && e.Pins == 0 && !e.IsRecent)
            {
                Remove(index); // the last one takes its place
                closing[count++] = e.Fd;
                e.Fd = InodeEntry.None;
                continue;
            }

            left |= isFile;
            e.IsRecent &= !isFile;
            position++;
        }

        _isNotified &= left || count > 0;
        return count;
    }

    /// <inheritdoc/>
    // Safe: frees what the constructor made; the pointer is null afterwards.
    public unsafe void Dispose()
    {
        NativeMemory.Free(_entries);
        _entries = null;
        GC.SuppressFinalize(this);
    }
}
