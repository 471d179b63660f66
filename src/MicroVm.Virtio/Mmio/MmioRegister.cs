namespace MicroVm.Virtio.Mmio;

/// <summary>Offsets in a virtio-mmio window (virtio 1.2, 4.2.2, table 4.1). Everything below <see cref="Config"/> is 32 bits wide.</summary>
public static class MmioRegister
{
#pragma warning disable CS1591 // named as in the specification
    public const uint MagicValue = 0x000;
    public const uint Version = 0x004;
    public const uint DeviceId = 0x008;
    public const uint VendorId = 0x00c;
    public const uint DeviceFeatures = 0x010;
    public const uint DeviceFeaturesSel = 0x014;
    public const uint DriverFeatures = 0x020;
    public const uint DriverFeaturesSel = 0x024;
    public const uint QueueSel = 0x030;
    public const uint QueueNumMax = 0x034;
    public const uint QueueNum = 0x038;
    public const uint QueueReady = 0x044;
    public const uint QueueNotify = 0x050;
    public const uint InterruptStatus = 0x060;
    public const uint InterruptAck = 0x064;
    public const uint Status = 0x070;
    public const uint QueueDescLow = 0x080;
    public const uint QueueDescHigh = 0x084;
    public const uint QueueDriverLow = 0x090;
    public const uint QueueDriverHigh = 0x094;
    public const uint QueueDeviceLow = 0x0a0;
    public const uint QueueDeviceHigh = 0x0a4;
    public const uint ShmSel = 0x0ac;
    public const uint ShmLenLow = 0x0b0;
    public const uint ShmLenHigh = 0x0b4;
    public const uint ShmBaseLow = 0x0b8;
    public const uint ShmBaseHigh = 0x0bc;
    public const uint QueueReset = 0x0c0;
    public const uint ConfigGeneration = 0x0fc;
    public const uint Config = 0x100;
#pragma warning restore CS1591

    /// <summary>
    /// Read-only, not in the specification: <see cref="StatusWordMagic"/>, when the device can keep its interrupt status in guest
    /// memory (kernel-config/patches/0026). Drivers that do not know it use <see cref="InterruptStatus"/> and <see cref="InterruptAck"/>.
    /// </summary>
    public const uint StatusWord = 0x0e0;

    /// <summary>Write-only: bits 0 to 31 of the guest physical address of the status word, which is aligned to 4 bytes.</summary>
    public const uint StatusWordLow = 0x0e4;

    /// <summary>Write-only: bits 32 to 63, which puts the word in use; the address 0 ends that, and so does a reset.</summary>
    public const uint StatusWordHigh = 0x0e8;

    /// <summary>Value of <see cref="StatusWord"/>: "SIWD".</summary>
    public const uint StatusWordMagic = 0x4457_4953;

    /// <summary>Value of <see cref="MagicValue"/>: "virt".</summary>
    public const uint Magic = 0x7472_6976;

    /// <summary>Length of a device's window in bytes.</summary>
    public const uint WindowLength = 0x1000;
}

/// <summary>Bits of the device status field (virtio 1.2, 2.1).</summary>
[Flags]
public enum VirtioStatus
{
    /// <summary>Reset.</summary>
    None = 0,

    /// <summary>ACKNOWLEDGE: the guest noticed the device.</summary>
    Acknowledge = 1,

    /// <summary>DRIVER: the guest has a driver for it.</summary>
    Driver = 2,

    /// <summary>DRIVER_OK: the driver is ready.</summary>
    DriverOk = 4,

    /// <summary>FEATURES_OK: the negotiation is over.</summary>
    FeaturesOk = 8,

    /// <summary>DEVICE_NEEDS_RESET: the device met an error that only a reset cures.</summary>
    NeedsReset = 0x40,

    /// <summary>FAILED: the driver gave up.</summary>
    Failed = 0x80,
}

/// <summary>Feature bits that belong to the transport and the queues (virtio 1.2, 6).</summary>
public static class VirtioFeature
{
    /// <summary>VIRTIO_F_INDIRECT_DESC.</summary>
    public const ulong RingIndirectDesc = 1ul << 28;

    /// <summary>VIRTIO_F_EVENT_IDX.</summary>
    public const ulong RingEventIdx = 1ul << 29;

    /// <summary>VIRTIO_F_VERSION_1: without it a driver is a legacy one, which this transport does not serve.</summary>
    public const ulong Version1 = 1ul << 32;
}
