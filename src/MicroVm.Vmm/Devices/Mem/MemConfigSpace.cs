using System.Runtime.InteropServices;

namespace MicroVm.Vmm.Devices.Mem;

/// <summary>The device's configuration, struct virtio_mem_config (virtio 1.2, 5.15.4); little-endian. Sizes in bytes.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal struct MemConfigSpace
{
    /// <summary>Bytes of the structure.</summary>
    public const int Size = 56;

    public ulong BlockSize;
    public ushort NodeId;
    public ushort Padding0;
    public uint Padding1;
    public ulong Address;
    public ulong RegionSize;
    public ulong UsableRegionSize;
    public ulong PluggedSize;
    public ulong RequestedSize;
}

/// <summary>Types of requests (5.15.6).</summary>
internal enum MemRequestType : ushort
{
    Plug = 0,
    Unplug = 1,
    UnplugAll = 2,
    State = 3,
}

/// <summary>Types of answers (5.15.6).</summary>
internal enum MemResponseType : ushort
{
    /// <summary>The request was carried out.</summary>
    Ack = 0,

    /// <summary>It was not: the device does not want it now.</summary>
    Nack = 1,

    /// <summary>It was not; it may be made again later.</summary>
    Busy = 2,

    /// <summary>It was not: it breaks a rule.</summary>
    Error = 3,
}

/// <summary>What an answer to <see cref="MemRequestType.State"/> says of a range (5.15.6.5).</summary>
internal enum MemState : ushort
{
    Plugged = 0,
    Unplugged = 1,
    Mixed = 2,
}

/// <summary>A request, struct virtio_mem_req (5.15.6); all types have an address and a number of blocks at the same place.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal struct MemRequest
{
    /// <summary>Bytes of a request.</summary>
    public const int Size = 24;

    public MemRequestType Type;
    public ushort Padding0;
    public uint Padding1;
    public ulong Address;
    public ushort Blocks;
    public ushort Padding2;
    public uint Padding3;
}

/// <summary>An answer, struct virtio_mem_resp (5.15.6).</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal struct MemResponse
{
    /// <summary>Bytes of an answer.</summary>
    public const int Size = 10;

    public MemResponseType Type;
    public ushort Padding0;
    public uint Padding1;
    public MemState State;
}
