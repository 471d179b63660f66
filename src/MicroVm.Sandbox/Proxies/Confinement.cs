using MicroVm.Linux;
using MicroVm.Linux.Jail;
using MicroVm.Linux.Native;
using MicroVm.Oci.Seccomp;

namespace MicroVm.Sandbox.Proxies;

/// <summary>
/// What a container's process on the host may still do once it parses what the running guest says: few capabilities, no new privileges by
/// executing anything, and the system calls that its work needs. A call that is not on the list fails with EPERM.
/// </summary>
internal static unsafe class Confinement
{
    // The kernel reads the lower half of these arguments alone.
    private const ulong Low = uint.MaxValue;

    // linux/socket.h: what the work of the network and of streams uses.
    private static readonly ulong[] Families = [Libc.AF_UNIX, 2, 10, Libc.AF_NETLINK];

    private static readonly string[] Calls =
    [
        // Memory, threads and signals of the runtime.
        "mmap", "munmap", "mremap", "mprotect", "madvise", "brk", "mincore", "futex", "set_robust_list", "get_robust_list", "rseq", "membarrier",
        "sched_yield", "sched_getaffinity", "sched_setaffinity", "getcpu", "clone", "clone3", "set_tid_address", "arch_prctl", "prctl", "prlimit64", "exit", "exit_group",
        "restart_syscall", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "rt_sigtimedwait", "nanosleep", "clock_nanosleep", "clock_gettime",
        "clock_getres", "gettimeofday", "time", "getrandom", "getrusage", "sysinfo", "uname", "getpid", "getppid", "gettid", "getuid", "geteuid", "getgid", "getegid",

        // Descriptors and files: the state folder, cgroups, /proc.
        "read", "write", "readv", "writev", "pread64", "pwrite64", "lseek", "close", "close_range", "dup", "dup2", "dup3", "fcntl", "ioctl", "pipe", "pipe2", "eventfd2",
        "timerfd_create", "timerfd_settime", "timerfd_gettime", "memfd_create", "poll", "ppoll", "select", "pselect6", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait",
        "open", "openat", "openat2", "stat", "fstat", "lstat", "newfstatat", "statx", "statfs", "fstatfs", "access", "faccessat", "faccessat2", "readlink", "readlinkat",
        "getdents64", "getcwd", "chdir", "fchdir", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "ftruncate", "fallocate",
        "fsync", "fdatasync", "fadvise64", "flock", "fchmod", "chmod",

        // Sockets: commands, the VMM, netlink.
        "socketpair", "connect", "accept", "accept4", "bind", "listen", "shutdown", "sendto", "recvfrom", "sendmsg", "recvmsg", "getsockopt", "setsockopt", "getsockname",
        "getpeername",

        // The VMM and the process that repeats a kill for want of memory: the same executable, under this filter, too.
        "vfork", "execve", "wait4", "waitid", "kill", "tgkill", "pidfd_open", "pidfd_send_signal", "setsid",
    ];

    /// <summary>
    /// For the process that owns a VM: it follows the network (taps, namespace), writes cgroups and the state folder, and takes further
    /// containers, whose mounts and sockets of the host it follows (<see cref="MountFollower"/>, <see cref="SocketFollower"/>).
    /// </summary>
    /// <exception cref="SandboxException">The kernel refuses.</exception>
    internal static void ForSandbox() => Enter([Libc.CAP_DAC_OVERRIDE, Libc.CAP_NET_ADMIN, Libc.CAP_SYS_ADMIN], OfSandbox);

    /// <summary>The profile of <see cref="ForSandbox"/>.</summary>
    internal static SeccompProfile OfSandbox =>
        Profile([Libc.CLONE_NEWNET], ["kcmp", .. MountFollower.SystemCalls, .. SocketFollower.SystemCalls], Libc.CLONE_FS | Libc.CLONE_NEWNS);

    /// <summary>For the process of an exec: in the end it takes itself out of the container's /proc on the host.</summary>
    /// <exception cref="SandboxException">The kernel refuses.</exception>
    internal static void ForExec() => Enter([Libc.CAP_SYS_ADMIN, Libc.CAP_SYS_CHROOT], Profile([Libc.CLONE_NEWNS], ["umount2"]));

    private static void Enter(ReadOnlySpan<int> capabilities, SeccompProfile profile)
    {
        try
        {
            ProcessCapabilities.Keep(capabilities);
            Check.Result(Libc.prctl(Libc.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)");
            Filter(SeccompCompiler.Compile(profile), (uint)profile.Flags);
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"the container's process on the host cannot give up its privileges: {e.Message}", e);
        }
    }

    /// <summary>The profile of a process that may enter namespaces of these kinds, make these calls beside the usual ones, and unshare these.</summary>
    internal static SeccompProfile Profile(ulong[] namespaces, string[] more, params ulong[] made)
    {
        const uint refused = SeccompAbi.SECCOMP_RET_ERRNO | (uint)Errno.EPERM;
        SortedDictionary<int, SyscallRules> calls = [];
        foreach (string name in Calls.Concat(more))
        {
            Rules(name).Add([], SeccompAbi.SECCOMP_RET_ALLOW);
        }

        Allow("setns", 1, namespaces);
        Allow("unshare", 0, [Libc.CLONE_FS, .. made]);
        Allow("socket", 0, Families);
        return new SeccompProfile
        {
            DefaultAction = refused,
            I386Action = SeccompAbi.SECCOMP_RET_KILL_PROCESS,
            X32Action = SeccompAbi.SECCOMP_RET_KILL_PROCESS,
            Flags = SeccompAbi.SECCOMP_FILTER_FLAG_TSYNC,
            Syscalls = calls,
        };

        SyscallRules Rules(string name)
        {
            int number = SyscallTable.All[name];
            return calls.TryGetValue(number, out SyscallRules? rules) ? rules : calls[number] = new SyscallRules();
        }

        void Allow(string name, int argument, ulong[] values)
        {
            foreach (ulong value in values)
            {
                Rules(name).Add([new ArgCondition(argument, ArgOperator.MaskedEqual, Low, value)], SeccompAbi.SECCOMP_RET_ALLOW);
            }
        }
    }

    /// <summary>Turns a compiled filter on: for this thread, or, with SECCOMP_FILTER_FLAG_TSYNC, for all or none.</summary>
    /// <exception cref="LinuxException">The kernel refuses.</exception>
    internal static void Filter(byte[] program, uint flags)
    {
        fixed (byte* code = program)
        {
            // struct sock_fprog: a count and, after padding, a pointer.
            nint* fprog = stackalloc nint[2];
            fprog[0] = program.Length / BpfInstruction.Size;
            fprog[1] = (nint)code;
            int result = Libc.seccomp(Libc.SECCOMP_SET_MODE_FILTER, flags, fprog);
            Check.Result(result, "seccomp");
            if (result > 0)
            {
                throw new LinuxException(Errno.ESRCH, "seccomp filter of every thread");
            }
        }
    }
}
