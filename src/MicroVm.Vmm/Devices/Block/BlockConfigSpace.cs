using System.Runtime.InteropServices;

namespace MicroVm.Vmm.Devices.Block;

/// <summary>The device's configuration, struct virtio_blk_config up to write zeroes (virtio 1.2, 5.2.4); little-endian.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal struct BlockConfigSpace
{
    /// <summary>Bytes of the structure.</summary>
    public const int Size = 60;

    public ulong Capacity;
    public uint SizeMax;
    public uint SegMax;
    public ushort Cylinders;
    public byte Heads;
    public byte Sectors;
    public uint BlockSize;
    public byte PhysicalBlockExponent;
    public byte AlignmentOffset;
    public ushort MinIoSize;
    public uint OptIoSize;
    public byte Writeback;
    public byte Unused0;
    public ushort NumQueues;
    public uint MaxDiscardSectors;
    public uint MaxDiscardSeg;
    public uint DiscardSectorAlignment;
    public uint MaxWriteZeroesSectors;
    public uint MaxWriteZeroesSeg;
    public byte WriteZeroesMayUnmap;
    public byte Unused1A;
    public byte Unused1B;
    public byte Unused1C;
}

/// <summary>Feature bits (5.2.3).</summary>
internal static class BlockFeature
{
    public const ulong SizeMax = 1ul << 1;
    public const ulong SegMax = 1ul << 2;
    public const ulong ReadOnly = 1ul << 5;
    public const ulong BlockSize = 1ul << 6;
    public const ulong Flush = 1ul << 9;
    public const ulong Topology = 1ul << 10;
    public const ulong Discard = 1ul << 13;
    public const ulong WriteZeroes = 1ul << 14;
}

/// <summary>Request types (5.2.6).</summary>
internal enum BlockRequestType : uint
{
    In = 0,
    Out = 1,
    Flush = 4,
    GetId = 8,
    Discard = 11,
    WriteZeroes = 13,
}

/// <summary>Values of a request's status byte (5.2.6).</summary>
internal enum BlockStatus : byte
{
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// <summary>Head of a request: struct virtio_blk_req up to data.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal struct BlockRequestHeader
{
    /// <summary>Bytes of a header.</summary>
    public const int Size = 16;

    public BlockRequestType Type;
    public uint Reserved;
    public ulong Sector;
}

/// <summary>A range of a discard or write-zeroes request: struct virtio_blk_discard_write_zeroes.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal struct BlockRange
{
    /// <summary>Bytes of a range.</summary>
    public const int Size = 16;

    /// <summary>Flag of write zeroes: the range may be unmapped.</summary>
    public const uint Unmap = 1;

    public ulong Sector;
    public uint Sectors;
    public uint Flags;
}
