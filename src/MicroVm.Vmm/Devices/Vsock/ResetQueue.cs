namespace MicroVm.Vmm.Devices.Vsock;

/// <summary>A reset to be sent to the guest: the flow's addresses and the type of the packet that it answers.</summary>
internal readonly record struct PendingReset(ulong HostCid, uint HostPort, uint GuestPort, ushort Type);

/// <summary>
/// Resets that wait for receive buffers: the "additional resources outside the virtqueue" of 5.10.6.1. Bounded: no packet
/// of the guest and no new client is taken while <see cref="IsFull"/>, and each stream alive adds at most one.
/// </summary>
internal sealed class ResetQueue
{
    private readonly Queue<PendingReset> _queue = new();

    /// <summary>How many wait.</summary>
    public int Count => _queue.Count;

    /// <summary>No more work that can end in a reset is to be taken on.</summary>
    public bool IsFull => _queue.Count >= VsockLimits.MaxQueuedResets;

    /// <summary>Adds one.</summary>
    public void Enqueue(in PendingReset reset) => _queue.Enqueue(reset);

    /// <summary>Looks at the oldest; false when none waits.</summary>
    public bool TryPeek(out PendingReset reset) => _queue.TryPeek(out reset);

    /// <summary>Removes the oldest.</summary>
    public void Dequeue() => _queue.Dequeue();

    /// <summary>Forgets all.</summary>
    public void Clear() => _queue.Clear();
}
