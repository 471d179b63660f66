using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by sys/ioctl.h and linux/fs.h
    public const uint BLKGETSIZE64 = 0x80081272;
    public const uint FS_IOC_GETFLAGS = 0x80086601;
    public const uint FS_IOC_SETFLAGS = 0x40086602;
    public const uint FS_IOC_FSGETXATTR = 0x801C581F;
    public const uint FS_IOC_FSSETXATTR = 0x401C5820;

    [LibraryImport("libc", SetLastError = true)]
    public static partial int ioctl(int fd, nuint request, nint arg);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int ioctl(int fd, nuint request, void* arg);
#pragma warning restore CS1591
}
