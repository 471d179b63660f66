using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by time.h
    public const int CLOCK_PROCESS_CPUTIME_ID = 2;

    [LibraryImport("libc", SetLastError = true)]
    public static partial int clock_settime(int clockid, timespec* tp);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int clock_gettime(int clockid, timespec* tp);
#pragma warning restore CS1591
}
