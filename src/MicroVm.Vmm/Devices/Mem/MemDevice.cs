using System.Runtime.InteropServices;
using MicroVm.Bus.Counters;
using MicroVm.Jail;
using MicroVm.Memory;
using MicroVm.Virtio;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Vmm.Devices.Mem;

/// <summary>
/// virtio-mem (virtio 1.2, 5.15): RAM behind that which the VM booted with, plugged by the guest in blocks of 2 MiB as it is asked to.
/// Nothing of the region costs the host anything before it is asked for.
/// </summary>
/// <remarks>A thread of its own serves the queue, since what is unplugged is given back to the host. A reset leaves what is plugged (5.15.5.2).</remarks>
public sealed class MemDevice : VirtioDevice, ICounterSource, IRequestHandler
{
    /// <summary>Unit of the region's address and of what KVM is shown: Linux's memory blocks on x86.</summary>
    public const ulong Alignment = 128ul << 20;

    private readonly GuestMemory _memory;
    private readonly Action<GuestRegion> _show;
    private readonly MemCounters _counters = new();
    private readonly PluggedBlocks _blocks;
    private readonly MemRequests _requests;
    private readonly DeviceThread _thread = new("mem", ThreadKind.Memory);
    private RequestQueue? _queue;
    private IVirtioInterrupt? _interrupt;

    /// <summary>Makes a device for the region that <paramref name="memory"/> has reserved (<see cref="GuestMemory.Reserve"/>).</summary>
    /// <param name="memory">Guest RAM, borrowed.</param>
    /// <param name="show">Shows the guest a piece of RAM that has been added.</param>
    public MemDevice(GuestMemory memory, Action<GuestRegion> show)
    {
        ArgumentNullException.ThrowIfNull(memory);
        _memory = memory;
        _show = show;
        RegionSize = memory.Reserved.Length;
        _blocks = new PluggedBlocks(memory.Reserved.Gpa, RegionSize);
        _requests = new MemRequests(memory, _blocks, _counters);
    }

    /// <inheritdoc/>
    public override uint DeviceId => 24;

    /// <inheritdoc/>
    public override string Name => "mem";

    /// <inheritdoc/>
    public override ulong DeviceFeatures => 0;

    /// <inheritdoc/>
    public override ReadOnlySpan<ushort> QueueMaxSizes => [16];

    /// <summary>Most bytes that can be asked for.</summary>
    public ulong RegionSize { get; }

    /// <summary>Asks the guest to plug or unplug memory until <paramref name="bytes"/> are plugged. The loop's thread.</summary>
    /// <exception cref="Linux.LinuxException">The host refuses the memory.</exception>
    public void Request(ulong bytes)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(bytes, RegionSize);
        ulong requested = bytes & ~(PluggedBlocks.BlockSize - 1);
        ulong usable = (requested + Alignment - 1) & ~(Alignment - 1);
        if (usable > _memory.Grown)
        {
            _memory.Grow(usable, _show);
        }

        _blocks.Request(requested, usable);
        _interrupt?.SignalConfigChange();
    }

    /// <inheritdoc/>
    public override void ReadConfig(uint offset, Span<byte> data)
    {
        MemConfigSpace config = _blocks.Describe();
        CopyConfig(MemoryMarshal.AsBytes(new ReadOnlySpan<MemConfigSpace>(in config)), offset, data);
    }

    /// <summary>Only a VM with the memory that it booted with can be saved so far.</summary>
    public override string? WhyNotSaved => _memory.Grown > 0 ? $"{Name}: memory was added to the VM, which a snapshot does not hold" : null;

    /// <inheritdoc/>
    public override void SaveState(StateWriter writer)
    {
        ArgumentNullException.ThrowIfNull(writer);
        writer.Write(_memory.Reserved.Gpa);
        writer.Write(RegionSize);
    }

    /// <inheritdoc/>
    public override void RestoreState(StateReader reader)
    {
        ArgumentNullException.ThrowIfNull(reader);
        ulong gpa = reader.Read<ulong>(), size = reader.Read<ulong>();
        if (gpa != _memory.Reserved.Gpa || size != RegionSize)
        {
            throw new SnapshotException(
                $"{Name}: the snapshot may grow by {size >> 20} MiB at {gpa:x}, the configuration by {RegionSize >> 20} MiB at {_memory.Reserved.Gpa:x}");
        }
    }

    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">The driver did not set up the queue.</exception>
    public override void Activate(VirtioActivation activation)
    {
        ArgumentNullException.ThrowIfNull(activation);
        Virtqueue queue = activation.Require(0);
        _interrupt = activation.Interrupt;
        _thread.Serve(activation.Interrupt, () => _queue = new RequestQueue(queue, activation.Interrupt, _thread, this, RequestPolicy.Default));
    }

    /// <inheritdoc/>
    public override void StartThreads() => _thread.Start();

    /// <inheritdoc/>
    public override void NarrowThreads() => _thread.Narrow();

    /// <inheritdoc/>
    public override bool TryPark(int milliseconds) => _thread.TryPark(
        () =>
        {
            _queue?.Dispose();
            _queue = null;
        },
        milliseconds);

    /// <inheritdoc/>
    public override void Reset()
    {
        _ = TryPark(Timeout.Infinite);
        _interrupt = null;
    }

    /// <inheritdoc/>
    public void CollectCounters(Action<string, long> add)
    {
        ArgumentNullException.ThrowIfNull(add);
        MemConfigSpace config = _blocks.Describe();
        add(Name + ".requested.bytes", (long)config.RequestedSize);
        add(Name + ".plugged.bytes", (long)config.PluggedSize);
        add(Name + ".requests", Volatile.Read(ref _counters.Requests));
        add(Name + ".refused", Volatile.Read(ref _counters.Refused));
        add(Name + ".errors", Volatile.Read(ref _counters.Errors));
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        Reset();
        _thread.Dispose();
        base.Dispose();
    }

    uint IRequestHandler.Serve(Virtqueue queue, DescriptorChain chain)
    {
        uint written = _requests.Execute(chain);
        if (written == 0)
        {
            _ = queue.Break("a request is shorter than 24 bytes, or has no room for an answer of 10 (5.15.6)");
        }

        return written;
    }
}
