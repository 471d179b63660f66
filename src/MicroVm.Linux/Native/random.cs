using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by sys/random.h
    public const uint GRND_NONBLOCK = 1;
    public const uint GRND_RANDOM = 2;

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint getrandom(void* buf, nuint buflen, uint flags);
#pragma warning restore CS1591
}
