namespace MicroVm.Linux.Native;

public static partial class Libc
{
#pragma warning disable CS1591 // named and documented by linux/bpf.h
    public const int BPF_PROG_LOAD = 5;
    public const int BPF_PROG_ATTACH = 8;
    public const int BPF_PROG_DETACH = 9;
    public const int BPF_PROG_TYPE_CGROUP_DEVICE = 15;
    public const int BPF_PROG_TYPE_CGROUP_SOCK_ADDR = 18;
    public const int BPF_CGROUP_DEVICE = 6;
    public const int BPF_CGROUP_INET4_CONNECT = 10;
    public const int BPF_CGROUP_UDP4_SENDMSG = 14;
    public const int BPF_CGROUP_UDP4_RECVMSG = 19;
    public const int BPF_CGROUP_INET4_GETPEERNAME = 29;
    public const int BPF_F_ALLOW_MULTI = 2;
#pragma warning restore CS1591
}
