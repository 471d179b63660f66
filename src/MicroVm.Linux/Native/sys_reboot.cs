using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by sys/reboot.h
    public const int RB_AUTOBOOT = 0x01234567;
    public const int RB_POWER_OFF = 0x4321fedc;

    [LibraryImport("libc", SetLastError = true)]
    public static partial int reboot(int op);
#pragma warning restore CS1591
}
