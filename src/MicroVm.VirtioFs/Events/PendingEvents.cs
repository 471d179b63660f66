using System.Runtime.InteropServices;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Protocol;

namespace MicroVm.VirtioFs.Events;

/// <summary>
/// Events that wait for the guest to ask, as records of EVENTS' answer, in their order. An event that waits already, and is no part
/// of an order, is not added again.
/// </summary>
/// <remarks>Not for several threads at once.</remarks>
internal sealed class PendingEvents : IDisposable
{
    /// <summary>Most bytes of records: about as many as inotify(7) keeps where nobody said otherwise, 16,384.</summary>
    public const int Size = 1 << 20;

    // How far back an event that waits already is looked for: each one that is added costs as much.
    private const int Sought = 32 << 10;

    private const uint Unordered = Libc.IN_MODIFY | Libc.IN_ATTRIB | Libc.IN_CLOSE_WRITE | Libc.IN_ISDIR;

    // Room that is kept for one record of each watched inode: events of it were lost.
    private static readonly unsafe int LossSize = HostWatches.Max * sizeof(fuse_event);
    private unsafe byte* _records = (byte*)NativeMemory.Alloc((nuint)(Size + LossSize));
    private int _length;
    private int _soughtFrom;
    private int _lossEnd;

    ~PendingEvents() => Free();

    /// <summary>Nothing waits.</summary>
    public bool IsEmpty => _length == 0;

    /// <summary>Adds an event unless it waits already; false when there is no room.</summary>
    /// <param name="record">The event; it says how long the name is.</param>
    /// <param name="name">The name.</param>
    // Safe: the record with its name fits into what is free of Size bytes.
    public unsafe bool TryAdd(in fuse_event record, ReadOnlySpan<byte> name)
    {
        if ((record.mask & ~Unordered) == 0 && Waits(record, name))
        {
            return true;
        }

        int length = LengthOf(record);
        if (length > Size - _length)
        {
            return false;
        }

        byte* to = _records + _length;
        new Span<byte>(to, length).Clear();
        *(fuse_event*)to = record;
        name.CopyTo(new Span<byte>(to + sizeof(fuse_event), name.Length));
        _length += length;
        while (_length - _soughtFrom > Sought)
        {
            _soughtFrom += LengthOf(*(fuse_event*)(_records + _soughtFrom));
        }

        return true;
    }

    /// <summary>Whether it is still to be told that events were lost: not while that waits already.</summary>
    public bool TryBeginLoss() => _lossEnd == 0;

    /// <summary>Adds that events of an inode were lost; for each of at most <see cref="HostWatches.Max"/>, after <see cref="TryBeginLoss"/>.</summary>
    // Safe: the record fits into what is free of Size + LossSize bytes.
    public unsafe void AddLoss(ulong node)
    {
        if (_length + sizeof(fuse_event) <= Size + LossSize)
        {
            *(fuse_event*)(_records + _length) = new fuse_event { nodeid = node, mask = Libc.IN_Q_OVERFLOW };
            _length += sizeof(fuse_event);
            _lossEnd = _length;
        }
    }

    /// <summary>The first records, as many as are whole in <paramref name="most"/> bytes.</summary>
    // Safe: records are whole and end at _length.
    public unsafe ReadOnlySpan<byte> First(int most)
    {
        int whole = 0;
        while (whole < _length)
        {
            int next = whole + LengthOf(*(fuse_event*)(_records + whole));
            if (next > most)
            {
                break;
            }

            whole = next;
        }

        return new(_records, whole);
    }

    /// <summary>Takes out what <see cref="First"/> gave, of that length.</summary>
    // Safe: callers have the length that First returned, which is at most _length.
    public unsafe void RemoveFirst(int length)
    {
        _length -= length;
        _soughtFrom = Math.Max(0, _soughtFrom - length);
        _lossEnd = Math.Max(0, _lossEnd - length);
        new ReadOnlySpan<byte>(_records + length, _length).CopyTo(new Span<byte>(_records, _length));
    }

    /// <summary>Forgets all.</summary>
    public void Clear() => _length = _soughtFrom = _lossEnd = 0;

    /// <inheritdoc/>
    public void Dispose()
    {
        Free();
        GC.SuppressFinalize(this);
    }

    // Safe: the size of a struct is asked for, nothing is followed.
    private static unsafe int LengthOf(in fuse_event record) => (int)(((uint)sizeof(fuse_event) + record.namelen + 7) & ~7u);

    // What comes after a name was made, removed or moved is another thing than what came before.
    // Safe: records are whole from _soughtFrom to _length, each with its name.
    private unsafe bool Waits(in fuse_event record, ReadOnlySpan<byte> name)
    {
        bool found = false;
        for (int at = _soughtFrom; at < _length;)
        {
            fuse_event* known = (fuse_event*)(_records + at);
            if (known->nodeid == record.nodeid)
            {
                found |= known->mask == record.mask && name.SequenceEqual(new ReadOnlySpan<byte>(known + 1, (int)known->namelen));
                found &= (known->mask & ~Unordered) == 0;
            }

            at += LengthOf(*known);
        }

        return found;
    }

    // Safe: frees what the initialiser made; the pointer is null afterwards.
    private unsafe void Free()
    {
        NativeMemory.Free(_records);
        _records = null;
    }
}
