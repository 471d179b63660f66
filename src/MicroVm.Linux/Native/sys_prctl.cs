using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by sys/prctl.h and linux/seccomp.h
    public const int PR_SET_PDEATHSIG = 1;
    public const int PR_GET_DUMPABLE = 3;
    public const int PR_SET_DUMPABLE = 4;
    public const int PR_SET_KEEPCAPS = 8;
    public const int PR_SET_NAME = 15;
    public const int PR_CAPBSET_DROP = 24;
    public const int PR_GET_SECUREBITS = 27;
    public const int PR_SET_SECUREBITS = 28;
    public const int PR_SET_NO_NEW_PRIVS = 38;
    public const int PR_CAP_AMBIENT = 47;
    public const int PR_CAP_AMBIENT_RAISE = 2;
    public const int PR_CAP_AMBIENT_CLEAR_ALL = 4;

    // linux/securebits.h
    public const int SECBIT_NO_SETUID_FIXUP = 1 << 2;
    public const int SECBIT_NO_SETUID_FIXUP_LOCKED = 1 << 3;

    public const int SECCOMP_SET_MODE_FILTER = 1;

    [LibraryImport("libc", SetLastError = true)]
    public static partial int prctl(int option, nuint arg2, nuint arg3, nuint arg4, nuint arg5);
#pragma warning restore CS1591
}
