using System.Diagnostics;
using System.Runtime.CompilerServices;
using MicroVm.Linux;
using MicroVm.Memory;

namespace MicroVm.Virtio;

/// <summary>
/// The device's side of a split virtqueue (virtio 1.2, 2.7) with indirect descriptors and event index. The three areas
/// are checked once, when the queue is made; everything read from them afterwards is read once and checked before use.
/// A driver that breaks a rule marks the queue <see cref="IsBroken"/>, and no more is taken from it.
/// </summary>
/// <remarks>
/// One thread at a time. The pointers stay valid while the guest's memory is mapped, which outlives every device.
/// </remarks>
public sealed class Virtqueue
{
    /// <summary>Queue sizes are powers of two up to this (2.7).</summary>
    public const int MaxSize = 32768;

    private const ushort AvailNoInterrupt = 1;
    private const ushort UsedNoNotify = 1;
    private readonly GuestMemory _memory;
    private readonly unsafe Descriptor* _descriptors;
    private readonly unsafe ushort* _avail;
    private readonly unsafe ushort* _used;
    private readonly bool _eventIndex;
    private readonly bool _indirect;
    private readonly ushort _mask;
    private ushort _nextAvail;
    private ushort _nextUsed;
    private ushort _publishedUsed;
    private bool _signalledValid;
    private bool _breakReported;

    // Safe: Validate found the three areas aligned and wholly inside RAM, which stays mapped as long as the queue is used.
    private unsafe Virtqueue(GuestMemory memory, in VirtqueueLayout layout, int index, bool eventIndex, bool indirect, EventFd kick)
    {
        _memory = memory;
        Layout = layout;
        Index = index;
        Kick = kick;
        _eventIndex = eventIndex;
        _indirect = indirect;
        _mask = (ushort)(layout.Size - 1);
        _descriptors = (Descriptor*)memory.TryGetPointer(layout.DescriptorTable, (ulong)layout.Size * Descriptor.Size);
        _avail = (ushort*)memory.TryGetPointer(layout.AvailableRing, AvailableRingLength(layout.Size));
        _used = (ushort*)memory.TryGetPointer(layout.UsedRing, UsedRingLength(layout.Size));
        Debug.Assert(_descriptors is not null && _avail is not null && _used is not null, "the layout was not validated");
    }

    /// <summary>The queue's number within its device.</summary>
    public int Index { get; }

    /// <summary>Where the driver put the queue.</summary>
    public VirtqueueLayout Layout { get; }

    /// <summary>Signalled when the driver kicks the queue; owned by the transport.</summary>
    public EventFd Kick { get; }

    /// <summary>The number of descriptors.</summary>
    public int Size => Layout.Size;

    /// <summary>Buffers may lie in a window of the guest's memory; the queue itself and indirect tables never do.</summary>
    public bool TakesWindowBuffers { get; set; }

    /// <summary>Set once the driver broke a rule; nothing more is taken from the queue until the device is reset.</summary>
    public bool IsBroken { get; private set; }

    /// <summary>Why the queue is broken: the spec's rule, for the log.</summary>
    public string? BrokenReason { get; private set; }

    /// <summary>The next index to be taken from the available ring and to be put into the used ring; for snapshots.</summary>
    public (ushort NextAvailable, ushort NextUsed) Position
    {
        get => (_nextAvail, _nextUsed);
        set
        {
            (_nextAvail, _nextUsed) = value;
            _publishedUsed = _nextUsed;
            _signalledValid = false;
        }
    }

    /// <summary>Checks the layout against the guest's memory (size, alignment, range) and makes the queue.</summary>
    /// <returns>Null when the driver's layout breaks a rule; <paramref name="reason"/> says which.</returns>
    public static Virtqueue? TryCreate(
        GuestMemory memory, in VirtqueueLayout layout, int maxSize, int index, bool eventIndex, bool indirect, EventFd kick, out string? reason)
    {
        ArgumentNullException.ThrowIfNull(memory);
        reason = Validate(memory, layout, maxSize);
        return reason is null ? new Virtqueue(memory, layout, index, eventIndex, indirect, kick) : null;
    }

    /// <summary>How many requests wait; more than the queue's size breaks the queue (2.7.13.3).</summary>
    // Safe: the index is the second word of the available ring.
    public unsafe int Pending()
    {
        ushort waiting = (ushort)(Volatile.Read(ref _avail[1]) - _nextAvail);
        if (waiting > Layout.Size)
        {
            Break("the available index moved by more than the queue's size (2.7.13.3)");
        }

        return IsBroken ? 0 : waiting;
    }

    /// <summary>Takes the next request.</summary>
    /// <returns>False when none waits or the queue is (now) broken.</returns>
    // Safe: the mask keeps the entry inside the available ring; the head is checked before it indexes the table.
    public unsafe bool TryPop(DescriptorChain chain)
    {
        if (IsBroken || Pending() == 0)
        {
            return false;
        }

        // Volatile.Read of the index above orders the reads of the ring and the table after it (2.7.13.3.1). The entry
        // is read once: the driver may change it between the check and the use.
        ushort head = Volatile.Read(ref _avail[2 + (_nextAvail & _mask)]);
        if (head >= Layout.Size)
        {
            return Break("an available-ring entry is not below the queue's size (2.7.6)");
        }

        chain.Clear(head);
        if (!Walk(chain, _descriptors, Layout.Size, head, inIndirect: false))
        {
            return false;
        }

        _nextAvail++;
        return true;
    }

    /// <summary>
    /// Takes the next request, or asks for a kick when there is none, in the order that loses no request: the driver may add one
    /// just before it sees the wish. After false nothing is to be done until the kick.
    /// </summary>
    /// <returns>False when none waits or the queue is (now) broken.</returns>
    public bool TryPopOrArm(DescriptorChain chain)
    {
        while (!TryPop(chain))
        {
            if (IsBroken || !EnableNotifications())
            {
                return false;
            }

            DisableNotifications();
        }

        return true;
    }

    /// <summary>Gives the last popped request back unprocessed, so that the next pop takes it again.</summary>
    public void UndoPop() => _nextAvail--;

    /// <summary>
    /// Puts a finished request into the used ring without showing it to the driver yet; <see cref="Publish"/> does that
    /// for a whole batch.
    /// </summary>
    /// <param name="head">The chain's head.</param>
    /// <param name="written">Bytes written into its device-writable part, from the start (2.7.8).</param>
    // Safe: the mask keeps the slot inside the used ring, and its entries are aligned to 4 bytes.
    public unsafe void PushUsed(ushort head, uint written)
    {
        uint* slot = (uint*)(_used + 2) + (2 * (_nextUsed & _mask));
        slot[0] = head;
        slot[1] = written;
        _nextUsed++;
    }

    /// <summary>Shows all pushed requests to the driver.</summary>
    /// <returns>
    /// True when the driver asked to be interrupted for them (2.7.7, 2.7.10); false when nothing was pushed since the
    /// last call.
    /// </returns>
    // Safe: the index is the second word of the used ring; used_event is the last one of the available ring.
    public unsafe bool Publish()
    {
        ushort old = _publishedUsed;
        bool valid = _signalledValid;
        if (_nextUsed == old)
        {
            return false;
        }

        Volatile.Write(ref _used[1], _nextUsed);

        // The driver's wish must be read after the new index is visible to it, or a wake-up is lost (2.7.10.1).
        Interlocked.MemoryBarrier();
        _publishedUsed = _nextUsed;
        _signalledValid = true;
        if (!_eventIndex)
        {
            return (Volatile.Read(ref _avail[0]) & AvailNoInterrupt) == 0;
        }

        ushort usedEvent = Volatile.Read(ref _avail[2 + Layout.Size]);
        return !valid || (ushort)(_nextUsed - usedEvent - 1) < (ushort)(_nextUsed - old);
    }

    /// <summary>Asks the driver not to kick while the queue is being worked on. A hint only.</summary>
    // Safe: flags are the first word of the used ring.
    public unsafe void DisableNotifications()
    {
        if (!_eventIndex)
        {
            Volatile.Write(ref _used[0], UsedNoNotify);
        }
    }

    /// <summary>Asks for a kick at the next request.</summary>
    /// <returns>True when requests arrived meanwhile, so that the caller must look again.</returns>
    // Safe: avail_event is the last word of the used ring, as UsedRingLength measures it; flags are the first.
    public unsafe bool EnableNotifications()
    {
        if (_eventIndex)
        {
            // avail_event lies behind the used ring's entries (2.7.8).
            Volatile.Write(ref _used[2 + (4 * Layout.Size)], _nextAvail);
        }
        else
        {
            Volatile.Write(ref _used[0], 0);
        }

        Interlocked.MemoryBarrier();
        return Pending() != 0;
    }

    /// <summary>Marks the queue broken for a rule that the device itself checks (a request without room for its answer...).</summary>
    /// <returns>False, for callers that pass it on.</returns>
    public bool Break(string reason)
    {
        if (!IsBroken)
        {
            IsBroken = true;
            BrokenReason = $"queue {Index}: {reason}";
        }

        return false;
    }

    /// <summary>Tells the driver, once, that the queue is broken.</summary>
    /// <returns>True when the queue is broken.</returns>
    public bool ReportIfBroken(IVirtioInterrupt interrupt)
    {
        if (IsBroken && !_breakReported)
        {
            _breakReported = true;
            interrupt.SignalNeedsReset(BrokenReason!);
        }

        return IsBroken;
    }

    private static ulong AvailableRingLength(ushort size) => 6 + (2ul * size);

    private static ulong UsedRingLength(ushort size) => 6 + (8ul * size);

    // Safe: pointers are compared with null, not followed.
    private static unsafe string? Validate(GuestMemory memory, in VirtqueueLayout layout, int maxSize)
    {
        ushort size = layout.Size;
        return size == 0 || size > maxSize || (size & (size - 1)) != 0
            ? $"queue size {size} is not a power of two up to {maxSize} (2.7)"
            : layout.DescriptorTable % 16 != 0 || layout.AvailableRing % 2 != 0 || layout.UsedRing % 4 != 0
            ? "a queue area is not aligned (2.7)"
            : memory.TryGetPointer(layout.DescriptorTable, (ulong)size * Descriptor.Size) is null
            ? $"the descriptor table at {layout.DescriptorTable:x} is outside guest memory"
            : memory.TryGetPointer(layout.AvailableRing, AvailableRingLength(size)) is null
            ? $"the available ring at {layout.AvailableRing:x} is outside guest memory"
            : memory.TryGetPointer(layout.UsedRing, UsedRingLength(size)) is null
            ? $"the used ring at {layout.UsedRing:x} is outside guest memory"
            : null;
    }

    // Safe: the index stays below tableSize, for which the table was checked; the driver may change a descriptor, so it is copied once.
    [MethodImpl(MethodImplOptions.AggressiveOptimization)]
    private unsafe bool Walk(DescriptorChain chain, Descriptor* table, uint tableSize, ushort index, bool inIndirect)
    {
        // A chain longer than its table has a loop (2.7.5).
        for (uint steps = 0; steps < tableSize; steps++)
        {
            Descriptor d = Unsafe.ReadUnaligned<Descriptor>(table + index);
            if ((d.Flags & Descriptor.FlagIndirect) != 0)
            {
                return WalkIndirect(chain, d, inIndirect);
            }

            byte* p = _memory.TryGetPointer(d.Address, d.Length);
            bool inWindow = p is null && TakesWindowBuffers;
            if (inWindow)
            {
                p = _memory.TryGetWindowPointer(d.Address, d.Length);
            }

            if (p is null)
            {
                return Break("a descriptor's buffer is outside guest memory");
            }

            if (!chain.TryAppend(p, d.Length, (d.Flags & Descriptor.FlagWrite) != 0, inWindow))
            {
                return Break("a chain has more segments than the device takes, or has a readable descriptor after a writable one (2.7.4.2)");
            }

            if ((d.Flags & Descriptor.FlagNext) == 0)
            {
                return true;
            }

            if (d.Next >= tableSize)
            {
                return Break("a descriptor's next index is outside its table (2.7.5)");
            }

            index = d.Next;
        }

        return Break("a descriptor chain has a loop (2.7.5)");
    }

    // Safe: the table was checked to lie in RAM for its whole length.
    private unsafe bool WalkIndirect(DescriptorChain chain, in Descriptor d, bool inIndirect)
    {
        if (!_indirect || inIndirect || (d.Flags & Descriptor.FlagNext) != 0)
        {
            return Break("an indirect descriptor that was not negotiated, is nested, or has NEXT set (2.7.5.3.1)");
        }

        if (d.Length == 0 || d.Length % Descriptor.Size != 0 || d.Length / Descriptor.Size > MaxSize)
        {
            return Break("an indirect table's length is not a multiple of 16, or too large (2.7.5.3)");
        }

        Descriptor* table = (Descriptor*)_memory.TryGetPointer(d.Address, d.Length);
        return table is null
            ? Break("an indirect table is outside guest memory")
            : Walk(chain, table, d.Length / Descriptor.Size, 0, inIndirect: true);
    }
}
