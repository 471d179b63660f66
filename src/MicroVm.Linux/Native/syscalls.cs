namespace MicroVm.Linux.Native;

/// <summary>
/// System calls by number: those for which glibc 2.36 has no function, and those that its function makes on every thread of the process,
/// where the kernel's call changes the calling thread alone. Errors are in errno, as of functions.
/// </summary>
public static unsafe partial class Libc
{
    /// <summary>openat2(2).</summary>
    public static int openat2(int dirfd, byte* path, open_how* how, nuint size) =>
        (int)syscall((nint)SYS_openat2, dirfd, (nint)path, (nint)how, (nint)size, 0, 0);

    /// <summary>bpf(2).</summary>
    public static int bpf(int cmd, void* attr, uint size) => (int)syscall((nint)SYS_bpf, cmd, (nint)attr, (nint)size, 0, 0, 0);

    /// <summary>kcmp(2).</summary>
    public static int kcmp(int pid1, int pid2, int type, nint idx1, nint idx2) =>
        (int)syscall((nint)SYS_kcmp, pid1, pid2, type, idx1, idx2, 0);

    /// <summary>seccomp(2).</summary>
    public static int seccomp(uint operation, uint flags, void* args) =>
        (int)syscall((nint)SYS_seccomp, (nint)operation, (nint)flags, (nint)args, 0, 0, 0);

    /// <summary>sched_setattr(2).</summary>
    public static int sched_setattr(int pid, void* attr, uint flags) => (int)syscall((nint)SYS_sched_setattr, pid, (nint)attr, (nint)flags, 0, 0, 0);

    /// <summary>setgroups(2) of the calling thread.</summary>
    public static int thread_setgroups(nuint size, uint* list) => (int)syscall((nint)SYS_setgroups, (nint)size, (nint)list, 0, 0, 0, 0);

    /// <summary>setresuid(2) of the calling thread; 0xffffffff leaves an id as it is.</summary>
    public static int thread_setresuid(uint ruid, uint euid, uint suid) =>
        (int)syscall((nint)SYS_setresuid, (nint)ruid, (nint)euid, (nint)suid, 0, 0, 0);

    /// <summary>setresgid(2) of the calling thread; 0xffffffff leaves an id as it is.</summary>
    public static int thread_setresgid(uint rgid, uint egid, uint sgid) =>
        (int)syscall((nint)SYS_setresgid, (nint)rgid, (nint)egid, (nint)sgid, 0, 0, 0);
}
