using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by sys/wait.h
    public const int WNOHANG = 1;
    public const int WEXITED = 4;
    public const int WNOWAIT = 0x1000000;
    public const int __WALL = 0x40000000;
    public const int P_PID = 1;

    [LibraryImport("libc", SetLastError = true)]
    public static partial int waitpid(int pid, int* status, int options);
#pragma warning restore CS1591
}
