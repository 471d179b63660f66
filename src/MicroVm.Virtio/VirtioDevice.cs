using MicroVm.Linux;
using MicroVm.Memory;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Virtio;

/// <summary>
/// A device model behind the virtio-mmio transport. A device is a folder: the device (this class), its config space,
/// its requests, its back end.
/// </summary>
/// <remarks>
/// Threads: <see cref="Activate"/> and <see cref="Reset"/> run on the event loop's thread, as do the event handlers
/// that the device registers there; <see cref="ReadConfig"/> and <see cref="WriteConfig"/> run on vCPU threads.
/// A device that runs threads of its own has them from <see cref="StartThreads"/> to Dispose; they serve its queues from Activate on,
/// and have let go of them when <see cref="TryPark"/> says so, or Reset returns.
/// </remarks>
public abstract class VirtioDevice : IDisposable
{
    /// <summary>Virtio device id (virtio 1.2, section 5): 2 block, 4 entropy, 19 vsock, 26 fs...</summary>
    public abstract uint DeviceId { get; }

    /// <summary>A short name for logs and counters: "vsock", "fs0".</summary>
    public abstract string Name { get; }

    /// <summary>
    /// Device-specific feature bits that are offered. The transport adds VERSION_1, RING_INDIRECT_DESC and RING_EVENT_IDX.
    /// </summary>
    public abstract ulong DeviceFeatures { get; }

    /// <summary>Largest size of each queue: powers of two.</summary>
    public abstract ReadOnlySpan<ushort> QueueMaxSizes { get; }

    /// <summary>Reads config space; bytes behind its end read as 0.</summary>
    public virtual void ReadConfig(uint offset, Span<byte> data) => data.Clear();

    /// <summary>Writes config space; ignored where nothing is writable.</summary>
    public virtual void WriteConfig(uint offset, ReadOnlySpan<byte> data)
    {
    }

    /// <summary>
    /// Buffers may lie in a window (<see cref="GuestMemory.AddWindow"/>): the device hands data segments to system calls only.
    /// </summary>
    public virtual bool TakesWindowBuffers => false;

    /// <summary>The shared-memory region with <paramref name="id"/> (virtio 1.2, 2.10), when the device has it.</summary>
    public virtual bool TryGetSharedMemory(byte id, out ulong gpa, out ulong length)
    {
        gpa = 0;
        length = 0;
        return false;
    }

    /// <summary>
    /// Starts the threads that the device will need, parked: before the system call filter is turned on, with which no thread
    /// can be made. A device whose threads were not started starts them in <see cref="Activate"/>.
    /// </summary>
    public virtual void StartThreads()
    {
    }

    /// <summary>Leaves the device's threads what their kinds need (<see cref="Jail.SystemCallFilter.Narrow"/>), once the filter is on.</summary>
    public virtual void NarrowThreads()
    {
    }

    /// <summary>
    /// Has the device's threads let go of the queues after the request that each is at. Called before <see cref="Reset"/> by who
    /// can wait for a request of the host, which the event loop cannot.
    /// </summary>
    /// <param name="milliseconds">How long to wait for each; -1 for as long as it takes.</param>
    /// <returns>False when a request still goes on.</returns>
    public virtual bool TryPark(int milliseconds) => true;

    /// <summary>Why the device cannot be saved as it is: a sentence that names it; null when it can. Its threads stand still.</summary>
    public abstract string? WhyNotSaved { get; }

    /// <summary>Writes what the device keeps beside its queues. Its threads stand still.</summary>
    public virtual void SaveState(StateWriter writer)
    {
    }

    /// <summary>Reads what <see cref="SaveState"/> wrote, before <see cref="Activate"/>.</summary>
    /// <exception cref="SnapshotException">It is malformed, or not of a device like this one.</exception>
    public virtual void RestoreState(StateReader reader)
    {
    }

    /// <summary>The driver set DRIVER_OK: start serving the queues.</summary>
    public abstract void Activate(VirtioActivation activation);

    /// <summary>The driver reset the device: stop using the queues before returning. Called only after Activate.</summary>
    public abstract void Reset();

    /// <inheritdoc/>
    public virtual void Dispose() => GC.SuppressFinalize(this);

    /// <summary>Answers <see cref="ReadConfig"/> from a config space that is kept whole.</summary>
    protected static void CopyConfig(ReadOnlySpan<byte> config, uint offset, Span<byte> data)
    {
        data.Clear();
        if (offset < config.Length)
        {
            ReadOnlySpan<byte> rest = config[(int)offset..];
            rest[..Math.Min(rest.Length, data.Length)].CopyTo(data);
        }
    }
}

/// <summary>What a device gets when its driver is ready; valid until <see cref="VirtioDevice.Reset"/>.</summary>
/// <param name="Memory">Guest RAM.</param>
/// <param name="Queues">The queues by number; null where the driver did not enable one.</param>
/// <param name="DriverFeatures">The negotiated feature bits.</param>
/// <param name="Interrupt">Tells the driver of used buffers and configuration changes.</param>
/// <param name="Loop">The device thread's event loop.</param>
public sealed record VirtioActivation(
    GuestMemory Memory, Virtqueue?[] Queues, ulong DriverFeatures, IVirtioInterrupt Interrupt, EventLoop Loop)
{
    /// <summary>A queue that the device does not work without.</summary>
    /// <exception cref="InvalidOperationException">The driver did not set it up.</exception>
    public Virtqueue Require(int queue) => Queues[queue]
        ?? throw new InvalidOperationException($"the driver left queue {queue} disabled, without which the device does not work");
}

/// <summary>A device's way to its driver; any thread may call it.</summary>
public interface IVirtioInterrupt
{
    /// <summary>Used buffers were published in a queue (virtio 1.2, 4.2.2: InterruptStatus bit 0).</summary>
    void SignalUsed();

    /// <summary>The configuration changed (InterruptStatus bit 1); the transport advances ConfigGeneration.</summary>
    void SignalConfigChange();

    /// <summary>
    /// The driver broke a rule: sets DEVICE_NEEDS_RESET (2.1.2), counts it, and logs each <paramref name="reason"/> once (<see cref="Bus.Counters.DriverFaultLog"/>).
    /// </summary>
    void SignalNeedsReset(string reason);
}
