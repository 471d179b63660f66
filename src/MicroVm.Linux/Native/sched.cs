using System.Runtime.InteropServices;

namespace MicroVm.Linux.Native;

public static unsafe partial class Libc
{
#pragma warning disable CS1591 // named and documented by sched.h
    public const int CLONE_VM = 0x100;
    public const int CLONE_FS = 0x200;
    public const int CLONE_FILES = 0x400;
    public const int CLONE_PIDFD = 0x1000;
    public const int CLONE_PARENT = 0x8000;
    public const int CLONE_PARENT_SETTID = 0x100000;
    public const int CLONE_NEWTIME = 0x80;
    public const int CLONE_NEWNS = 0x20000;
    public const int CLONE_NEWCGROUP = 0x2000000;
    public const int CLONE_NEWUTS = 0x4000000;
    public const int CLONE_NEWIPC = 0x8000000;
    public const int CLONE_NEWUSER = 0x10000000;
    public const int CLONE_NEWPID = 0x20000000;
    public const int CLONE_NEWNET = 0x40000000;
    public const ulong CLONE_CLEAR_SIGHAND = 0x100000000;
    public const ulong CLONE_INTO_CGROUP = 0x200000000;

    /// <summary>clone3(2)'s argument (linux/sched.h).</summary>
    public struct clone_args
    {
        public ulong flags;
        public ulong pidfd;
        public ulong child_tid;
        public ulong parent_tid;
        public ulong exit_signal;
        public ulong stack;
        public ulong stack_size;
        public ulong tls;
        public ulong set_tid;
        public ulong set_tid_size;
        public ulong cgroup;
    }

    [LibraryImport("libc", SetLastError = true)]
    public static partial int setns(int fd, int nstype);


    /// <summary>A set of CPUs, in glibc's size.</summary>
    public struct cpu_set_t
    {
        public fixed ulong __bits[16];
    }

    [LibraryImport("libc", SetLastError = true)]
    public static partial int sched_getaffinity(int pid, nuint cpusetsize, cpu_set_t* mask);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int sched_setaffinity(int pid, nuint cpusetsize, cpu_set_t* mask);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int unshare(int flags);
#pragma warning restore CS1591
}
