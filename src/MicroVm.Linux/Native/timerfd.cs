using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by sys/timerfd.h and time.h
    public const int CLOCK_REALTIME = 0;
    public const int CLOCK_MONOTONIC = 1;
    public const int CLOCK_BOOTTIME = 7;
    public const int TFD_CLOEXEC = 0x80000;
    public const int TFD_NONBLOCK = 0x800;

    /// <summary>A timer's period and the time until it first expires (bits/types/struct_itimerspec.h).</summary>
    public struct itimerspec
    {
        public timespec it_interval;
        public timespec it_value;
    }

    [LibraryImport("libc", SetLastError = true)]
    public static partial int timerfd_create(int clockid, int flags);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int timerfd_settime(int fd, int flags, itimerspec* new_value, itimerspec* old_value);
#pragma warning restore CS1591
}
