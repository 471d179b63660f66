using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by sys/uio.h
    public const int IOV_MAX = 1024;

    /// <summary>A buffer of a vectored call (bits/types/struct_iovec.h).</summary>
    public struct iovec
    {
        public byte* iov_base;
        public nuint iov_len;
    }

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint readv(int fd, iovec* iov, int iovcnt);

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint writev(int fd, iovec* iov, int iovcnt);

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint preadv(int fd, iovec* iov, int iovcnt, long offset);

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint pwritev(int fd, iovec* iov, int iovcnt, long offset);
    [LibraryImport("libc", SetLastError = true)]
    public static partial nint process_vm_readv(int pid, iovec* local_iov, nuint liovcnt, iovec* remote_iov, nuint riovcnt, nuint flags);
#pragma warning restore CS1591
}
