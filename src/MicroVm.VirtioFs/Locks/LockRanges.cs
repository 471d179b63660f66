using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Descriptors;

namespace MicroVm.VirtioFs.Locks;

/// <summary>
/// Ranges of bytes that are locked, as sorted lists in unmanaged memory: one list for each owner, whose ranges neither
/// overlap nor touch with the same type. A later lock replaces what it overlaps, as fcntl(2) says. Not thread-safe.
/// </summary>
internal sealed class LockRanges : IDisposable
{
    /// <summary>The end of a list, and an empty one.</summary>
    public const int None = -1;

    /// <summary>Slots that one change may need: it can cut a range in two and add one.</summary>
    public const int MostAdded = 2;

    private readonly SlotTable<Range> _slots = new(0);

    /// <summary>Number of ranges in all lists.</summary>
    public int Count => _slots.Count;

    /// <summary>The range in a slot, valid until the next <see cref="Set"/>.</summary>
    public ref Range this[int index] => ref _slots.Entry(index);

    /// <summary>Makes a range have a type; F_UNLCK takes it out.</summary>
    /// <returns>The list's new head.</returns>
    public int Set(int head, long start, long end, uint type)
    {
        head = Remove(head, start, end);
        return type == Libc.F_UNLCK ? head : Insert(head, start, end, type);
    }

    /// <summary>The first range of a list that a lock of another owner must wait for; <see cref="None"/> when it need not.</summary>
    public int FindConflict(int head, long start, long end, uint type)
    {
        for (int i = head; i != None && _slots.Entry(i).Start <= end; i = _slots.Entry(i).Next)
        {
            ref Range r = ref _slots.Entry(i);
            if (r.End >= start && (type == Libc.F_WRLCK || r.Type == Libc.F_WRLCK))
            {
                return i;
            }
        }

        return None;
    }

    /// <summary>Whether taking these bytes out leaves two parts of one range, so that a slot more is needed.</summary>
    public bool IsCut(int head, long start, long end)
    {
        for (int i = head; i != None && _slots.Entry(i).Start < start; i = _slots.Entry(i).Next)
        {
            if (_slots.Entry(i).End > end)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>Frees a whole list.</summary>
    public void Clear(int head)
    {
        while (head != None)
        {
            int next = _slots.Entry(head).Next;
            _slots.Remove(head);
            head = next;
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _slots.Dispose();

    private int Remove(int head, long start, long end)
    {
        int previous = None;
        for (int i = head; i != None && _slots.Entry(i).Start <= end;)
        {
            ref Range r = ref _slots.Entry(i);
            int next = r.Next;
            bool keepLeft = r.Start < start;
            bool keepRight = r.End > end;
            if (r.End < start)
            {
                previous = i;
            }
            else if (keepLeft)
            {
                long last = r.End;
                r.End = start - 1;
                if (keepRight)
                {
                    Add(end + 1, last, r.Type, i);
                    return head;
                }

                previous = i;
            }
            else if (keepRight)
            {
                r.Start = end + 1;
                return head;
            }
            else
            {
                head = Unlink(head, previous, i);
            }

            i = next;
        }

        return head;
    }

    private int Insert(int head, long start, long end, uint type)
    {
        int previous = None;
        for (int i = head; i != None && _slots.Entry(i).Start < start; i = _slots.Entry(i).Next)
        {
            previous = i;
        }

        // Nothing overlaps: what is before ends before the start, so that the sum cannot overflow.
        int current = previous;
        if (previous != None && _slots.Entry(previous).Type == type && _slots.Entry(previous).End + 1 == start)
        {
            _slots.Entry(previous).End = end;
        }
        else if (previous != None)
        {
            current = Add(start, end, type, previous);
        }
        else
        {
            current = Add(start, end, type, None);
            _slots.Entry(current).Next = head;
            head = current;
        }

        int next = _slots.Entry(current).Next;
        if (next != None && _slots.Entry(next).Type == type && _slots.Entry(next).Start - 1 == end)
        {
            _slots.Entry(current).End = _slots.Entry(next).End;
            head = Unlink(head, current, next);
        }

        return head;
    }

    private int Add(long start, long end, uint type, int after)
    {
        int index = _slots.Add();
        _slots.Entry(index) = new Range { Start = start, End = end, Type = type, Next = after == None ? None : _slots.Entry(after).Next };
        if (after != None)
        {
            _slots.Entry(after).Next = index;
        }

        return index;
    }

    private int Unlink(int head, int previous, int index)
    {
        int next = _slots.Entry(index).Next;
        _slots.Remove(index);
        if (previous == None)
        {
            return next;
        }

        _slots.Entry(previous).Next = next;
        return head;
    }

    /// <summary>A locked range.</summary>
    internal struct Range
    {
        public long Start;
        public long End;
        public uint Type;
        public int Next;
    }
}
