using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace MicroVm.Vmm.Devices.Net;

/// <summary>The device's configuration, struct virtio_net_config up to mtu (virtio 1.2, 5.1.4); little-endian.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal struct NetConfigSpace
{
    /// <summary>Bytes of the structure.</summary>
    public const int Size = 12;

    /// <summary>Status: the link is up.</summary>
    public const ushort LinkUp = 1;

    public MacBytes Mac;
    public ushort Status;
    public ushort MaxQueuePairs;
    public ushort Mtu;

    /// <summary>Six bytes as they are on the wire.</summary>
    [InlineArray(6)]
    public struct MacBytes
    {
        private byte _first;
    }
}

/// <summary>Feature bits (5.1.3); USO came after 1.2.</summary>
internal static class NetFeature
{
    public const ulong Csum = 1ul << 0;
    public const ulong GuestCsum = 1ul << 1;
    public const ulong CtrlGuestOffloads = 1ul << 2;
    public const ulong Mtu = 1ul << 3;
    public const ulong Mac = 1ul << 5;
    public const ulong GuestTso4 = 1ul << 7;
    public const ulong GuestTso6 = 1ul << 8;
    public const ulong GuestEcn = 1ul << 9;
    public const ulong GuestUfo = 1ul << 10;
    public const ulong HostTso4 = 1ul << 11;
    public const ulong HostTso6 = 1ul << 12;
    public const ulong HostEcn = 1ul << 13;
    public const ulong HostUfo = 1ul << 14;
    public const ulong MrgRxbuf = 1ul << 15;
    public const ulong Status = 1ul << 16;
    public const ulong CtrlVq = 1ul << 17;
    public const ulong CtrlRx = 1ul << 18;
    public const ulong CtrlVlan = 1ul << 19;
    public const ulong CtrlRxExtra = 1ul << 20;
    public const ulong Mq = 1ul << 22;
    public const ulong CtrlMacAddr = 1ul << 23;
    public const ulong GuestUso4 = 1ul << 54;
    public const ulong GuestUso6 = 1ul << 55;
    public const ulong HostUso = 1ul << 56;

    /// <summary>What the driver can take of frames on their way in, and change while running (5.1.6.5.6).</summary>
    public const ulong GuestOffloads =
        GuestCsum | GuestTso4 | GuestTso6 | GuestEcn | GuestUfo | GuestUso4 | GuestUso6;
}
