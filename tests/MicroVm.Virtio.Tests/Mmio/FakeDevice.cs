namespace MicroVm.Virtio.Tests.Mmio;

/// <summary>A device that records what the transport does to it.</summary>
internal sealed class FakeDevice : VirtioDevice
{
    public const ulong Feature = 1ul << 3;

    public VirtioActivation? Active { get; private set; }

    public int Activations { get; private set; }

    public int Resets { get; private set; }

    public byte[] Config { get; } = [1, 2, 3, 4, 5, 6, 7, 8];

    public Exception? ActivateThrows { get; set; }

    public override uint DeviceId => 42;

    public override string Name => "fake";

    public override ulong DeviceFeatures => Feature;

    public override string? WhyNotSaved => null;

    public ushort[] QueueSizes { get; init; } = [64, 8];

    public override ReadOnlySpan<ushort> QueueMaxSizes => QueueSizes;

    public override void ReadConfig(uint offset, Span<byte> data)
    {
        for (int i = 0; i < data.Length; i++)
        {
            data[i] = offset + (uint)i < (uint)Config.Length ? Config[offset + i] : (byte)0;
        }
    }

    public override bool TryGetSharedMemory(byte id, out ulong gpa, out ulong length)
    {
        gpa = id == 0 ? 0x1_2345_6000ul : 0ul;
        length = id == 0 ? 0x2_0000_1000ul : 0ul;
        return id == 0;
    }

    public override void Activate(VirtioActivation activation)
    {
        if (ActivateThrows is { } e)
        {
            throw e;
        }

        Assert.Null(Active);
        Active = activation;
        Activations++;
    }

    public override void Reset()
    {
        Assert.NotNull(Active);
        Active = null;
        Resets++;
    }
}
