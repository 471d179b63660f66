using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by sys/xattr.h and linux/limits.h
    public const int XATTR_CREATE = 1;
    public const int XATTR_REPLACE = 2;
    public const int XATTR_SIZE_MAX = 65536;
    public const int XATTR_LIST_MAX = 65536;
    public const int XATTR_NAME_MAX = 255;

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint getxattr(byte* path, byte* name, void* value, nuint size);

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint listxattr(byte* path, byte* list, nuint size);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int setxattr(byte* path, byte* name, void* value, nuint size, int flags);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int removexattr(byte* path, byte* name);
#pragma warning restore CS1591
}
