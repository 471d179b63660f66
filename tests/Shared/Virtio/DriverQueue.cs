using System.Runtime.CompilerServices;
using MicroVm.Linux;
using MicroVm.Virtio;

namespace MicroVm.Tests.Shared.Virtio;

/// <summary>A buffer of a chain: where, how long, and which way.</summary>
public readonly record struct Segment(ulong Gpa, uint Length, bool Writable);

/// <summary>
/// The driver's side of a split virtqueue (virtio 1.2, 2.7.13, 2.7.14): free descriptors, available ring, kicks as far as
/// the device asks for them, used ring. Allocates nothing after it was made. For hostile drivers its rings can be written
/// at will.
/// </summary>
public sealed unsafe class DriverQueue : IDisposable
{
    private const ushort NoNotify = 1;
    private const int IndirectEntries = 256;
    private readonly GuestDriver _driver;
    private readonly Descriptor* _table;
    private readonly ushort* _avail;
    private readonly ushort* _used;
    private readonly ushort[] _free;
    private readonly ushort[] _chainLength;
    private readonly ulong[] _indirectTables;
    private readonly bool _eventIndex;
    private readonly bool _indirect;
    private int _freeCount;
    private ushort _nextAvail;
    private ushort _kickedAvail;
    private ushort _lastUsed;

    internal DriverQueue(GuestDriver driver, int index, ushort size, bool eventIndex, bool indirect)
    {
        _driver = driver;
        _eventIndex = eventIndex;
        _indirect = indirect;
        Index = index;
        Layout = new VirtqueueLayout(
            size, driver.Allocate(size * 16ul, 16), driver.Allocate(6 + (2ul * size), 2), driver.Allocate(6 + (8ul * size), 4));
        _table = (Descriptor*)driver.Memory.TryGetPointer(Layout.DescriptorTable, size * 16ul);
        _avail = (ushort*)driver.Memory.TryGetPointer(Layout.AvailableRing, 6 + (2ul * size));
        _used = (ushort*)driver.Memory.TryGetPointer(Layout.UsedRing, 6 + (8ul * size));
        _free = new ushort[size];
        _chainLength = new ushort[size];
        _indirectTables = new ulong[size];
        Clear();
    }

    /// <summary>The queue's number.</summary>
    public int Index { get; }

    /// <summary>Where it lies.</summary>
    public VirtqueueLayout Layout { get; }

    /// <summary>The doorbell.</summary>
    public EventFd Kick { get; } = new();

    /// <summary>The device's side, of the last activation.</summary>
    public Virtqueue? DeviceSide { get; private set; }

    /// <summary>Descriptors that are not in a chain.</summary>
    public int FreeDescriptors => _freeCount;

    /// <summary>Kicks that the device did not suppress.</summary>
    public int Kicks { get; private set; }

    /// <summary>Finished chains that <see cref="TryTakeUsed"/> was not called for yet.</summary>
    public int UsedCount => (ushort)(Volatile.Read(ref _used[1]) - _lastUsed);

    /// <summary>The descriptor table, to be spoilt.</summary>
    public Span<Descriptor> Table => new(_table, Layout.Size);

    /// <summary>The available ring (flags, index, entries, used_event), to be spoilt.</summary>
    public Span<ushort> AvailableRing => new(_avail, 3 + Layout.Size);

    /// <summary>Adds a chain of direct descriptors.</summary>
    /// <returns>Its head.</returns>
    public ushort Add(params ReadOnlySpan<Segment> segments)
    {
        if (segments.Length == 0 || segments.Length > _freeCount)
        {
            throw new InvalidOperationException($"queue {Index}: {segments.Length} segments, {_freeCount} free descriptors");
        }

        ushort head = _free[_freeCount - 1];
        for (int i = 0; i < segments.Length; i++)
        {
            ushort at = _free[--_freeCount];
            bool last = i == segments.Length - 1;
            _table[at] = Make(segments[i], last ? (ushort)0 : _free[_freeCount - 1], last);
        }

        _chainLength[head] = (ushort)segments.Length;
        Offer(head);
        return head;
    }

    /// <summary>Adds a chain as one indirect descriptor, behind <paramref name="direct"/> direct ones.</summary>
    public ushort AddIndirect(ReadOnlySpan<Segment> segments, int direct = 0)
    {
        int indirect = segments.Length - direct;
        if (!_indirect || indirect is < 1 or > IndirectEntries || direct + 1 > _freeCount)
        {
            throw new InvalidOperationException($"queue {Index}: no indirect chain of {segments.Length} is possible");
        }

        ushort head = _free[_freeCount - 1];
        for (int i = 0; i < direct; i++)
        {
            ushort at = _free[--_freeCount];
            _table[at] = Make(segments[i], _free[_freeCount - 1], last: false);
        }

        ushort slot = _free[--_freeCount];
        if (_indirectTables[slot] == 0)
        {
            _indirectTables[slot] = _driver.Allocate(IndirectEntries * 16, 16);
        }

        Descriptor* table = (Descriptor*)_driver.Memory.TryGetPointer(_indirectTables[slot], IndirectEntries * 16);
        for (int i = 0; i < indirect; i++)
        {
            table[i] = Make(segments[direct + i], (ushort)(i + 1), i == indirect - 1);
        }

        _table[slot] = new Descriptor(_indirectTables[slot], (uint)indirect * 16, Descriptor.FlagIndirect, 0);
        _chainLength[head] = (ushort)(direct + 1);
        Offer(head);
        return head;
    }

    /// <summary>Puts a head into the available ring without showing it yet.</summary>
    public void Offer(ushort head) => _avail[2 + (_nextAvail++ & (Layout.Size - 1))] = head;

    /// <summary>Shows everything offered and kicks the device, unless it asked not to be.</summary>
    /// <returns>True when it was kicked.</returns>
    public bool Notify()
    {
        ushort old = _kickedAvail;
        Volatile.Write(ref _avail[1], _nextAvail);
        Interlocked.MemoryBarrier();
        _kickedAvail = _nextAvail;
        ushort availEvent = Volatile.Read(ref _used[2 + (4 * Layout.Size)]);
        bool wanted = _eventIndex
            ? (ushort)(_nextAvail - availEvent - 1) < (ushort)(_nextAvail - old)
            : (Volatile.Read(ref _used[0]) & NoNotify) == 0;
        if (wanted && _nextAvail != old)
        {
            Kicks++;
            Kick.Signal();
            return true;
        }

        return false;
    }

    /// <summary>Takes a finished chain, and its descriptors back.</summary>
    public bool TryTakeUsed(out ushort head, out uint written)
    {
        head = 0;
        written = 0;
        if (UsedCount == 0)
        {
            return false;
        }

        uint* entry = (uint*)(_used + 2) + (2 * (_lastUsed++ & (Layout.Size - 1)));
        head = (ushort)entry[0];
        written = entry[1];
        for (ushort at = head, n = _chainLength[head]; n > 0; n--)
        {
            // The rest of the chain first, so that the head is the next to be taken.
            _free[_freeCount++] = at;
            at = _table[at].Next;
        }

        if (_eventIndex)
        {
            SetUsedEvent(_lastUsed);
        }

        return true;
    }

    /// <summary>Asks to be interrupted when the used index passes <paramref name="value"/>.</summary>
    public void SetUsedEvent(ushort value) => Volatile.Write(ref _avail[2 + Layout.Size], value);

    /// <summary>Asks for no interrupts, where event index is not negotiated.</summary>
    public void SuppressInterrupts(bool suppress) => Volatile.Write(ref _avail[0], suppress ? (ushort)1 : (ushort)0);

    /// <summary>Makes it as new; the indirect tables stay.</summary>
    public void Clear()
    {
        int size = Layout.Size;
        new Span<byte>(_table, size * 16).Clear();
        new Span<byte>(_avail, 6 + (2 * size)).Clear();
        new Span<byte>(_used, 6 + (8 * size)).Clear();
        _freeCount = size;
        for (int i = 0; i < size; i++)
        {
            _free[i] = (ushort)(size - 1 - i);
        }

        _nextAvail = _kickedAvail = _lastUsed = 0;
        _ = Kick.Drain();
    }

    /// <inheritdoc/>
    public void Dispose() => Kick.Dispose();

    /// <summary>Makes the device's side of the queue, for <see cref="GuestDriver.Activate"/> or to be driven by hand.</summary>
    public Virtqueue MakeDeviceSide()
    {
        Virtqueue? queue = Virtqueue.TryCreate(
            _driver.Memory, Layout, Layout.Size, Index, _eventIndex, _indirect, Kick, out string? reason);
        DeviceSide = queue ?? throw new InvalidOperationException(reason);
        return queue;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static Descriptor Make(in Segment segment, ushort next, bool last) => new(
        segment.Gpa,
        segment.Length,
        (ushort)((last ? 0 : Descriptor.FlagNext) | (segment.Writable ? Descriptor.FlagWrite : 0)),
        next);
}
