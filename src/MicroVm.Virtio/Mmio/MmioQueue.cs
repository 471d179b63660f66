using MicroVm.Linux;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Virtio.Mmio;

/// <summary>What the driver wrote into a queue's registers before it said DRIVER_OK. Guarded by the transport's lock.</summary>
internal sealed class MmioQueue(ushort maxSize) : IDisposable
{
    /// <summary>QueueNumMax.</summary>
    public ushort MaxSize { get; } = maxSize;

    /// <summary>QueueNum; anything is stored, and checked when the queue is made.</summary>
    public uint Size { get; private set; }

    /// <summary>QueueReady.</summary>
    public bool Ready { get; set; }

    /// <summary>QueueDesc.</summary>
    public ulong DescriptorTable { get; private set; }

    /// <summary>QueueDriver.</summary>
    public ulong AvailableRing { get; private set; }

    /// <summary>QueueDevice.</summary>
    public ulong UsedRing { get; private set; }

    /// <summary>Signalled by the driver's kicks. Made with the first activation: devices that no driver takes cost nothing.</summary>
    public EventFd? Kick { get; set; }

    /// <summary>The host signals <see cref="Kick"/> by itself (ioeventfd).</summary>
    public bool HasIoEvent { get; set; }

    /// <summary>The layout, whose size is 0, which no queue has, when it does not fit 16 bits.</summary>
    public VirtqueueLayout Layout =>
        new(Size <= Virtqueue.MaxSize ? (ushort)Size : (ushort)0, DescriptorTable, AvailableRing, UsedRing);

    /// <summary>Stores a register of the layout; the driver may not change a queue that is ready (4.2.2.2).</summary>
    public void Write(uint register, uint value)
    {
        if (Ready)
        {
            return;
        }

        switch (register)
        {
            case MmioRegister.QueueNum:
                Size = value;
                break;
            case MmioRegister.QueueDescLow:
                DescriptorTable = WithLow(DescriptorTable, value);
                break;
            case MmioRegister.QueueDescHigh:
                DescriptorTable = WithHigh(DescriptorTable, value);
                break;
            case MmioRegister.QueueDriverLow:
                AvailableRing = WithLow(AvailableRing, value);
                break;
            case MmioRegister.QueueDriverHigh:
                AvailableRing = WithHigh(AvailableRing, value);
                break;
            case MmioRegister.QueueDeviceLow:
                UsedRing = WithLow(UsedRing, value);
                break;
            case MmioRegister.QueueDeviceHigh:
                UsedRing = WithHigh(UsedRing, value);
                break;
        }
    }

    /// <summary>Back to the state after a device reset.</summary>
    public void Clear()
    {
        Size = 0;
        Ready = false;
        DescriptorTable = 0;
        AvailableRing = 0;
        UsedRing = 0;
        _ = Kick?.Drain();
    }

    /// <summary>Writes the registers.</summary>
    public void Save(StateWriter writer)
    {
        writer.Write(Size);
        writer.WriteFlag(Ready);
        writer.Write(DescriptorTable);
        writer.Write(AvailableRing);
        writer.Write(UsedRing);
    }

    /// <summary>Reads the registers; they are checked when the queue is made, as those that a driver writes.</summary>
    public void Restore(StateReader reader)
    {
        Size = reader.Read<uint>();
        Ready = reader.ReadFlag();
        DescriptorTable = reader.Read<ulong>();
        AvailableRing = reader.Read<ulong>();
        UsedRing = reader.Read<ulong>();
    }

    /// <inheritdoc/>
    public void Dispose() => Kick?.Dispose();

    private static ulong WithLow(ulong value, uint low) => (value & 0xffff_ffff_0000_0000) | low;

    private static ulong WithHigh(ulong value, uint high) => (value & 0xffff_ffff) | ((ulong)high << 32);
}
