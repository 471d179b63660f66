namespace MicroVm.Linux.Native;

/// <summary>System calls for which glibc 2.36 has no function, by number. Errors are in errno, as of functions.</summary>
public static unsafe partial class Libc
{
    /// <summary>openat2(2).</summary>
    public static int openat2(int dirfd, byte* path, open_how* how, nuint size) =>
        (int)syscall((nint)SYS_openat2, dirfd, (nint)path, (nint)how, (nint)size, 0, 0);

    /// <summary>bpf(2).</summary>
    public static int bpf(int cmd, void* attr, uint size) => (int)syscall((nint)SYS_bpf, cmd, (nint)attr, (nint)size, 0, 0, 0);
}
