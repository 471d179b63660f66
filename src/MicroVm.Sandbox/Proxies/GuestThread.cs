using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci.Seccomp;

namespace MicroVm.Sandbox.Proxies;

/// <summary>
/// Threads that read what a guest says, in a process that cannot give up its rights as a whole (containerd's shim): the answers of the agent,
/// standard streams, the console. Each gives up all capabilities, gets no_new_privs, and keeps the system calls for memory, waiting, and
/// reading and writing what is open: it can open, connect to and execute nothing. Any other call fails with EPERM.
/// </summary>
internal static unsafe class GuestThread
{
    private const ulong Low = uint.MaxValue;
    private const ulong ProtExec = 4;

    // The runtime's own (memory, locks, signals to its own threads, garbage collection, the end of a thread), then the work.
    private static readonly string[] Calls =
    [
        "munmap", "mremap", "madvise", "brk", "futex", "membarrier", "rseq", "set_robust_list", "sched_yield", "getcpu", "sysinfo", "getrandom",
        "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "nanosleep", "clock_nanosleep", "clock_gettime", "gettid", "getpid", "restart_syscall", "exit", "exit_group",
        "read", "write", "recvfrom", "poll", "ppoll", "shutdown", "close",
    ];

    private static byte[]? s_filter;

    /// <summary>What such a thread may do.</summary>
    internal static SeccompProfile Profile
    {
        get
        {
            SortedDictionary<int, SyscallRules> calls = [];
            foreach (string name in Calls)
            {
                Add(name);
            }

            Add("mmap", new ArgCondition(2, ArgOperator.MaskedEqual, ProtExec, 0));
            Add("mprotect", new ArgCondition(2, ArgOperator.MaskedEqual, ProtExec, 0));
            Add("tgkill", new ArgCondition(0, ArgOperator.MaskedEqual, Low, (ulong)Libc.getpid()));
            return new SeccompProfile
            {
                DefaultAction = SeccompAbi.SECCOMP_RET_ERRNO | (uint)Errno.EPERM,
                I386Action = SeccompAbi.SECCOMP_RET_KILL_PROCESS,
                X32Action = SeccompAbi.SECCOMP_RET_KILL_PROCESS,
                Flags = 0,
                Syscalls = calls,
            };

            void Add(string name, params ArgCondition[] conditions)
            {
                SyscallRules rules = new();
                rules.Add(conditions, SeccompAbi.SECCOMP_RET_ALLOW);
                calls.Add(SyscallTable.All[name], rules);
            }
        }
    }

    /// <summary>Has each such thread that starts from now on give up its rights. A process that filters all of its threads later must not ask for it.</summary>
    internal static void Confine() => s_filter = SeccompCompiler.Compile(Profile);

    /// <summary>To be called by such a thread first.</summary>
    /// <exception cref="LinuxException">The kernel refuses.</exception>
    internal static void Begin()
    {
        if (s_filter is null)
        {
            return;
        }

        Libc.__user_cap_header_struct header = new() { version = Libc._LINUX_CAPABILITY_VERSION_3 };
        Libc.__user_cap_data_struct* none = stackalloc Libc.__user_cap_data_struct[2];
        Check.Result(Libc.capset(&header, none), "capset", "a thread that reads from the guest");
        Check.Result(Libc.prctl(Libc.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)");
        Confinement.Filter(s_filter, 0);
    }
}
