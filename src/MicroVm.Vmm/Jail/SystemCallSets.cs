using MicroVm.Kvm.Native;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Vmm.Jail;

/// <summary>The kinds of threads of a VMM, by what they need of the kernel.</summary>
public enum ThreadKind
{
    /// <summary>The device thread; what it may do is the most that any thread of the process may, since the others come from it.</summary>
    Device,

    /// <summary>Runs a vCPU and its emulation assist: no file, socket or process can be made or opened.</summary>
    Vcpu,

    /// <summary>Serves a virtio-fs queue: no sockets, no KVM.</summary>
    Files,

    /// <summary>Serves a disk: no sockets, no KVM, no file but those that are open.</summary>
    Disk,

    /// <summary>Moves frames between a tap and the guest: nothing but descriptors that are open.</summary>
    Network,
}

/// <summary>
/// The system calls of each kind of thread, from what was seen under strace: the runtime's own (memory, threads, garbage
/// collection) and the thread's work. Anything else ends the process.
/// </summary>
public static class SystemCallSets
{
    private const uint ProtExec = 4;
    private const uint ThreadFlags = 0x00010000 | Libc.CLONE_VM | Libc.CLONE_FILES | 0x800; // CLONE_THREAD and what goes with it
    private const uint FionRead = 0x541B, TerminalGet = 0x5401;

    private static readonly SystemCall[] Runtime =
    [
        SystemCall.read, SystemCall.write, SystemCall.close, SystemCall.munmap, SystemCall.mremap,
        SystemCall.madvise, SystemCall.brk, SystemCall.rt_sigprocmask, SystemCall.rt_sigreturn,
        SystemCall.sigaltstack, SystemCall.futex, SystemCall.sched_yield, SystemCall.sched_getaffinity,
        SystemCall.nanosleep, SystemCall.clock_nanosleep, SystemCall.clock_gettime, SystemCall.clock_getres,
        SystemCall.gettid, SystemCall.getpid, SystemCall.set_robust_list, SystemCall.rseq, SystemCall.exit,
        SystemCall.exit_group, SystemCall.restart_syscall, SystemCall.membarrier, SystemCall.getrandom,
        SystemCall.getcpu, SystemCall.getrusage, SystemCall.sysinfo, SystemCall.uname, SystemCall.lseek,
        SystemCall.poll, SystemCall.ppoll, SystemCall.writev, SystemCall.readv, SystemCall.fcntl,
        SystemCall.epoll_ctl,
    ];

    private static readonly SystemCall[] Device =
    [
        SystemCall.epoll_wait, SystemCall.epoll_pwait, SystemCall.epoll_create1, SystemCall.eventfd2,
        SystemCall.timerfd_create, SystemCall.timerfd_settime, SystemCall.timerfd_gettime, SystemCall.accept4,
        SystemCall.connect, SystemCall.bind, SystemCall.listen, SystemCall.shutdown, SystemCall.getsockopt,
        SystemCall.setsockopt, SystemCall.getsockname, SystemCall.recvfrom, SystemCall.recvmsg, SystemCall.sendto,
        SystemCall.sendmsg, SystemCall.dup, SystemCall.dup3, SystemCall.pipe2, SystemCall.memfd_create,
    ];

    private static readonly SystemCall[] Disk =
    [
        SystemCall.preadv, SystemCall.pwritev, SystemCall.pread64, SystemCall.pwrite64, SystemCall.preadv2,
        SystemCall.pwritev2, SystemCall.fsync, SystemCall.fdatasync, SystemCall.fallocate, SystemCall.ftruncate,
        SystemCall.fstat, SystemCall.newfstatat, SystemCall.statx,
    ];

    private static readonly SystemCall[] Files =
    [
        SystemCall.openat, SystemCall.openat2, SystemCall.getdents64, SystemCall.readlinkat, SystemCall.mkdirat,
        SystemCall.mknodat, SystemCall.unlinkat, SystemCall.unlink, SystemCall.renameat, SystemCall.renameat2, SystemCall.linkat,
        SystemCall.symlinkat, SystemCall.fchmod, SystemCall.fchmodat, SystemCall.fchown, SystemCall.fchownat,
        SystemCall.utimensat, SystemCall.copy_file_range, SystemCall.syncfs, SystemCall.statfs, SystemCall.fstatfs,
        SystemCall.flock, SystemCall.getxattr, SystemCall.setxattr, SystemCall.listxattr, SystemCall.removexattr,
        SystemCall.fgetxattr, SystemCall.fsetxattr, SystemCall.flistxattr, SystemCall.fremovexattr,
        SystemCall.geteuid, SystemCall.getegid, SystemCall.getuid, SystemCall.setresuid, SystemCall.setresgid, SystemCall.setgroups,
        SystemCall.capget, SystemCall.capset, SystemCall.umask, SystemCall.fchdir, SystemCall.faccessat,
        SystemCall.faccessat2,
    ];

    // The runtime looks for files of /proc and /sys, and goes on without them.
    private static readonly SystemCall[] Lookups =
    [
        SystemCall.open, SystemCall.access, SystemCall.readlink, SystemCall.stat, SystemCall.lstat,
        SystemCall.openat, SystemCall.statx, SystemCall.newfstatat, SystemCall.faccessat, SystemCall.readlinkat,
    ];

    private static readonly uint[] VcpuIoctls =
    [
        KvmAbi.KVM_RUN, KvmAbi.KVM_GET_REGS, KvmAbi.KVM_SET_REGS, KvmAbi.KVM_GET_SREGS, KvmAbi.KVM_SET_SREGS, KvmAbi.KVM_GET_XSAVE,
        KvmAbi.KVM_SET_XSAVE, KvmAbi.KVM_GET_XSAVE2, KvmAbi.KVM_GET_XCRS, KvmAbi.KVM_SET_XCRS, KvmAbi.KVM_GET_VCPU_EVENTS,
        KvmAbi.KVM_SET_VCPU_EVENTS, KvmAbi.KVM_GET_MSRS, KvmAbi.KVM_SET_MSRS, KvmAbi.KVM_TRANSLATE, KvmAbi.KVM_GET_DEBUGREGS,
        KvmAbi.KVM_SET_DEBUGREGS, KvmAbi.KVM_KVMCLOCK_CTRL, KvmAbi.KVM_IRQ_LINE,

        // A driver that is ready has its queues' events made by the vCPU that says so.
        KvmAbi.KVM_IRQFD, KvmAbi.KVM_IOEVENTFD,
    ];

    private static readonly uint[] DeviceIoctls =
    [
        KvmAbi.KVM_SIGNAL_MSI, KvmAbi.KVM_SET_GSI_ROUTING, KvmAbi.KVM_SET_USER_MEMORY_REGION,
        KvmAbi.KVM_GET_CLOCK, KvmAbi.KVM_SET_CLOCK, (uint)Libc.TIOCGWINSZ, TerminalGet, FionRead,
        Libc.TUNGETIFF, Libc.TUNSETVNETHDRSZ, Libc.TUNSETOFFLOAD, Libc.TUNSETQUEUE,
    ];

    /// <summary>The rules of a kind of thread.</summary>
    /// <param name="kind">The kind.</param>
    /// <param name="process">This process's id, the only one that its threads may signal.</param>
    public static IReadOnlyList<SystemCallRule> For(ThreadKind kind, int process)
    {
        // First what is called most: the filter is read from its start.
        List<SystemCallRule> rules =
        [
            SystemCallRule.WhenArgument(SystemCall.ioctl, 1, uint.MaxValue, kind switch
            {
                ThreadKind.Vcpu => VcpuIoctls,
                ThreadKind.Device => [.. VcpuIoctls, .. DeviceIoctls],
                _ => [TerminalGet, FionRead],
            }),
        ];
        Allow(Runtime);
        rules.Add(SystemCallRule.WhenArgument(SystemCall.mmap, 2, ProtExec, 0));
        rules.Add(SystemCallRule.WhenArgument(SystemCall.mprotect, 2, ProtExec, 0));
        rules.Add(SystemCallRule.WhenArgument(SystemCall.tgkill, 0, uint.MaxValue, (uint)process));
        rules.Add(SystemCallRule.WhenArgument(SystemCall.prctl, 0, uint.MaxValue, Libc.PR_SET_NAME, Libc.PR_GET_SECUREBITS));
        rules.Add(SystemCallRule.WhenArgument(SystemCall.clone, 0, ThreadFlags, ThreadFlags));

        // clone3's flags lie in memory, where a filter cannot see them; libc then takes clone.
        rules.Add(SystemCallRule.Fail(SystemCall.clone3, Errno.ENOSYS));
        rules.Add(SystemCallRule.Fail(SystemCall.prlimit64, Errno.EPERM));
        if (kind is ThreadKind.Device)
        {
            Allow(Device);

            // A thread's own filter, which can only take away.
            rules.Add(SystemCallRule.WhenArgument(SystemCall.seccomp, 0, uint.MaxValue, Libc.SECCOMP_SET_MODE_FILTER));
            rules.Add(SystemCallRule.WhenArgument(SystemCall.socket, 0, uint.MaxValue, Libc.AF_UNIX));
        }

        if (kind is ThreadKind.Device or ThreadKind.Files)
        {
            Allow(Files);
            rules.Add(SystemCallRule.WhenArgument(SystemCall.unshare, 0, uint.MaxValue, Libc.CLONE_FS));
        }

        Allow(kind switch
        {
            ThreadKind.Vcpu => [SystemCall.eventfd2],
            ThreadKind.Network => [SystemCall.timerfd_settime],
            _ => Disk,
        });

        if (kind is ThreadKind.Files or ThreadKind.Disk or ThreadKind.Network)
        {
            Allow([SystemCall.epoll_wait, SystemCall.epoll_pwait]);
        }

        if (kind is ThreadKind.Files)
        {
            Allow([SystemCall.timerfd_settime]);
        }

        HashSet<SystemCall> known = [.. rules.Select(r => r.Number)];
        rules.AddRange(Lookups.Where(n => !known.Contains(n)).Select(n => SystemCallRule.Fail(n, Errno.EACCES)));
        return rules;

        void Allow(SystemCall[] calls) => rules.AddRange(calls.Select(SystemCallRule.Allow));
    }
}
