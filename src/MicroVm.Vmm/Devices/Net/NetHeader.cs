using System.Runtime.InteropServices;

namespace MicroVm.Vmm.Devices.Net;

/// <summary>What precedes every frame in both directions: struct virtio_net_hdr (virtio 1.2, 5.1.6); little-endian.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal struct NetHeader
{
    /// <summary>Bytes of a header; the tap's size, too (TUNSETVNETHDRSZ).</summary>
    public const int Size = 12;

    /// <summary>Where <see cref="NumBuffers"/> lies.</summary>
    public const int NumBuffersOffset = 10;

    /// <summary>Flag: the checksum from <see cref="CsumStart"/> on is to be completed.</summary>
    public const byte NeedsCsum = 1;

    public byte Flags;
    public NetGso GsoType;
    public ushort HeaderLength;
    public ushort GsoSize;
    public ushort CsumStart;
    public ushort CsumOffset;
    public ushort NumBuffers;
}

/// <summary>How a frame is to be cut into segments (5.1.6); UdpL4 came after 1.2.</summary>
internal enum NetGso : byte
{
    None = 0,
    Tcp4 = 1,
    Udp = 3,
    Tcp6 = 4,
    UdpL4 = 5,

    /// <summary>A flag beside TCP: the segments carry ECN.</summary>
    Ecn = 0x80,
}

/// <summary>Sizes of Ethernet.</summary>
internal static class Ethernet
{
    public const int HeaderLength = 14;
    public const int VlanTagLength = 4;
    public const ushort TypeIpv4 = 0x0800;
    public const ushort TypeIpv6 = 0x86dd;
    public const ushort TypeVlan = 0x8100;
    public const ushort TypeProviderVlan = 0x88a8;

    /// <summary>The most bytes that a tap hands over or takes: an IP packet of 64 KiB with its Ethernet header and two tags.</summary>
    public const int MaxFrame = 65535 + HeaderLength + (2 * VlanTagLength);
}
