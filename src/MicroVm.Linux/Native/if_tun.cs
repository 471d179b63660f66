using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by linux/if_tun.h and net/if.h
    public const uint TUNSETIFF = 0x400454ca;
    public const uint TUNGETFEATURES = 0x800454cf;
    public const uint TUNSETOFFLOAD = 0x400454d0;
    public const uint TUNGETIFF = 0x800454d2;
    public const uint TUNSETVNETHDRSZ = 0x400454d8;
    public const uint TUNSETQUEUE = 0x400454d9;
    public const int IFF_TAP = 0x0002;
    public const int IFF_NO_PI = 0x1000;
    public const int IFF_VNET_HDR = 0x4000;
    public const int IFF_MULTI_QUEUE = 0x0100;
    public const int IFF_TUN_EXCL = 0x8000;
    public const int IFF_ATTACH_QUEUE = 0x0200;
    public const int IFF_DETACH_QUEUE = 0x0400;
    public const int TUN_F_CSUM = 0x01;
    public const int TUN_F_TSO4 = 0x02;
    public const int TUN_F_TSO6 = 0x04;
    public const int TUN_F_TSO_ECN = 0x08;
    public const int TUN_F_UFO = 0x10;
    public const int IFNAMSIZ = 16;
    public const ulong SIOCGIFINDEX = 0x8933;

    /// <summary>An interface request (net/if.h), as far as flags and index need it.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 40)]
    public struct ifreq
    {
        [FieldOffset(0)]
        public fixed byte ifr_name[IFNAMSIZ];

        [FieldOffset(16)]
        public short ifr_flags;

        [FieldOffset(16)]
        public int ifr_ifindex;
    }
#pragma warning restore CS1591
}
