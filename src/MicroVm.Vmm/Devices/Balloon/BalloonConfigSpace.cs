using System.Runtime.InteropServices;

namespace MicroVm.Vmm.Devices.Balloon;

/// <summary>The device's configuration, struct virtio_balloon_config (virtio 1.2, 5.5.4); little-endian.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal struct BalloonConfigSpace
{
    /// <summary>Bytes of the structure.</summary>
    public const int Size = 16;

    /// <summary>Where <see cref="Actual"/> lies: the one field that drivers of this device write.</summary>
    public const int ActualOffset = 4;

    /// <summary>How many pages the balloon should hold.</summary>
    public uint NumPages;

    /// <summary>How many it holds, by the driver's word.</summary>
    public uint Actual;

    /// <summary>Of VIRTIO_BALLOON_F_FREE_PAGE_HINT, which is not offered.</summary>
    public uint FreePageHintCommand;

    /// <summary>Of VIRTIO_BALLOON_F_PAGE_POISON, which is not offered.</summary>
    public uint PoisonValue;
}

/// <summary>Feature bits (5.5.3).</summary>
internal static class BalloonFeature
{
    /// <summary>VIRTIO_BALLOON_F_REPORTING: the driver tells which of its memory is free.</summary>
    public const ulong Reporting = 1ul << 5;
}
