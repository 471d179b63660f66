using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by sys/fsuid.h
    [LibraryImport("libc", SetLastError = true)]
    public static partial int setfsuid(uint uid);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int setfsgid(uint gid);
#pragma warning restore CS1591
}
