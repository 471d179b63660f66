namespace MicroVm.Linux.Native;

public static partial class Libc
{
#pragma warning disable CS1591 // named and documented by linux/bpf.h
    public const int BPF_MAP_CREATE = 0;
    public const int BPF_MAP_UPDATE_ELEM = 2;
    public const int BPF_PROG_LOAD = 5;
    public const int BPF_PROG_ATTACH = 8;
    public const int BPF_PROG_DETACH = 9;
    public const int BPF_LINK_CREATE = 28;
    public const int BPF_MAP_TYPE_SOCKMAP = 15;
    public const int BPF_PROG_TYPE_CGROUP_DEVICE = 15;
    public const int BPF_PROG_TYPE_CGROUP_SOCK_ADDR = 18;
    public const int BPF_PROG_TYPE_SK_LOOKUP = 30;
    public const int BPF_CGROUP_DEVICE = 6;
    public const int BPF_CGROUP_INET4_CONNECT = 10;
    public const int BPF_CGROUP_UDP4_SENDMSG = 14;
    public const int BPF_CGROUP_UDP4_RECVMSG = 19;
    public const int BPF_CGROUP_INET4_GETPEERNAME = 29;
    public const int BPF_SK_LOOKUP = 36;
    public const int BPF_FUNC_map_lookup_elem = 1;
    public const int BPF_FUNC_sk_release = 86;
    public const int BPF_FUNC_sk_assign = 124;
    public const int BPF_PSEUDO_MAP_FD = 1;
    public const int BPF_F_ALLOW_MULTI = 2;
#pragma warning restore CS1591
}
