using System.Runtime.InteropServices;

namespace MicroVm.Vmm.Devices.Vsock;

/// <summary>Head of every packet (virtio 1.2, 5.10.6; linux/virtio_vsock.h), little-endian and packed.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal struct VsockHeader
{
    /// <summary>Bytes of a header in guest memory.</summary>
    public const int Size = 44;

    public ulong SourceCid;
    public ulong DestinationCid;
    public uint SourcePort;
    public uint DestinationPort;
    public uint Length;
    public ushort Type;
    public VsockOperation Operation;
    public uint Flags;
    public uint BufferAllocation;
    public uint ForwardCount;
}
