namespace MicroVm.Oci.Seccomp;

/// <summary>Constants of linux/seccomp.h and linux/audit.h, named as there.</summary>
public static class SeccompAbi
{
#pragma warning disable CS1591
    public const uint SECCOMP_RET_KILL_PROCESS = 0x80000000;
    public const uint SECCOMP_RET_KILL_THREAD = 0;
    public const uint SECCOMP_RET_TRAP = 0x00030000;
    public const uint SECCOMP_RET_ERRNO = 0x00050000;
    public const uint SECCOMP_RET_TRACE = 0x7ff00000;
    public const uint SECCOMP_RET_LOG = 0x7ffc0000;
    public const uint SECCOMP_RET_ALLOW = 0x7fff0000;
    public const uint SECCOMP_FILTER_FLAG_TSYNC = 1;
    public const uint SECCOMP_FILTER_FLAG_LOG = 2;
    public const uint SECCOMP_FILTER_FLAG_SPEC_ALLOW = 4;
    public const uint AUDIT_ARCH_X86_64 = 0xC000003E;
    public const uint AUDIT_ARCH_I386 = 0x40000003;
    public const uint X32_SYSCALL_BIT = 0x40000000;

    // struct seccomp_data
    public const uint OffsetNr = 0;
    public const uint OffsetArch = 4;
    public const uint OffsetArgs = 16;
#pragma warning restore CS1591
}
