namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by linux/rtnetlink.h, linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h
    public const uint TC_H_INGRESS = 0xfffffff1;
    public const ushort TCA_KIND = 1;
    public const ushort TCA_OPTIONS = 2;
    public const ushort TCA_U32_SEL = 5;
    public const ushort TCA_U32_ACT = 7;
    public const ushort TCA_MATCHALL_ACT = 2;
    public const ushort TCA_ACT_KIND = 1;
    public const ushort TCA_ACT_OPTIONS = 2;
    public const ushort TCA_MIRRED_PARMS = 2;
    public const int TCA_EGRESS_REDIR = 1;
    public const int TC_ACT_STOLEN = 4;
    public const byte TC_U32_TERMINAL = 1;
    public const ushort ETH_P_ALL = 3;

    /// <summary>Body of traffic control messages.</summary>
    public struct tcmsg
    {
        public byte tcm_family;
        public byte tcm__pad1;
        public ushort tcm__pad2;
        public int tcm_ifindex;
        public uint tcm_handle;
        public uint tcm_parent;
        public uint tcm_info;
    }

    /// <summary>Selector of the u32 classifier, without its keys.</summary>
    public struct tc_u32_sel
    {
        public byte flags;
        public byte offshift;
        public byte nkeys;
        public ushort offmask;
        public ushort off;
        public short offoff;
        public short hoff;
        public uint hmask;
    }

    /// <summary>A key of the u32 classifier.</summary>
    public struct tc_u32_key
    {
        public uint mask;
        public uint val;
        public int off;
        public int offmask;
    }

    /// <summary>Parameters of the mirred action.</summary>
    public struct tc_mirred
    {
        public uint index;
        public uint capab;
        public int action;
        public int refcnt;
        public int bindcnt;
        public int eaction;
        public uint ifindex;
    }
#pragma warning restore CS1591
}
