using MicroVm.Kvm.Native;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Jail;

/// <summary>The kinds of threads of a VMM, by what they need of the kernel.</summary>
public enum ThreadKind
{
    /// <summary>
    /// What all kinds together may do, and what a thread needs to be left less: on every thread from the moment when the filter is
    /// turned on, until <see cref="SystemCallFilter.Narrow"/>.
    /// </summary>
    Any,

    /// <summary>Threads of the .NET runtime: memory and waiting.</summary>
    Runtime,

    /// <summary>The device loop: sockets, terminals, taps.</summary>
    Device,

    /// <summary>Runs a vCPU and its instruction emulator: no file, socket or process can be made or opened.</summary>
    Vcpu,

    /// <summary>Waits to create a vCPU that comes later, and becomes <see cref="Vcpu"/> then.</summary>
    SpareVcpu,

    /// <summary>Serves a virtio-fs queue: no sockets but what it is lent to give a name to, no KVM.</summary>
    Files,

    /// <summary>Serves a disk: no sockets, no KVM, no file but those that are open.</summary>
    Disk,

    /// <summary>Gives memory of the guest back: nothing but its own loop, and madvise, which every thread has.</summary>
    Memory,

    /// <summary>Moves frames between a tap and the guest: nothing but descriptors that are open.</summary>
    Network,
}

/// <summary>
/// The system calls of each kind of thread, from what was seen under strace: the runtime's own (memory, locks, garbage
/// collection) and the thread's work. Anything else ends the process. No kind can make a thread or a process.
/// </summary>
public static class SystemCallSets
{
    private const uint ProtExec = 4;

    private static readonly SystemCall[] Runtime =
    [
        SystemCall.read, SystemCall.write, SystemCall.close, SystemCall.munmap, SystemCall.mremap,
        SystemCall.madvise, SystemCall.brk, SystemCall.rt_sigprocmask, SystemCall.rt_sigreturn,
        SystemCall.sigaltstack, SystemCall.futex, SystemCall.sched_yield,
        SystemCall.nanosleep, SystemCall.clock_nanosleep, SystemCall.clock_gettime,
        SystemCall.gettid, SystemCall.getpid, SystemCall.exit, SystemCall.exit_group, SystemCall.restart_syscall,
        SystemCall.membarrier, SystemCall.getrandom, SystemCall.sysinfo,
    ];

    private static readonly SystemCall[] Loop = [SystemCall.epoll_wait, SystemCall.epoll_pwait, SystemCall.epoll_ctl];

    private static readonly SystemCall[] Device =
    [
        SystemCall.eventfd2, SystemCall.timerfd_create, SystemCall.timerfd_settime, SystemCall.accept4,
        SystemCall.connect, SystemCall.shutdown, SystemCall.getsockopt, SystemCall.fcntl, SystemCall.poll, SystemCall.ppoll,
        SystemCall.recvfrom, SystemCall.recvmsg, SystemCall.sendto, SystemCall.sendmsg, SystemCall.readv, SystemCall.writev,
        SystemCall.fstat, SystemCall.newfstatat, SystemCall.statx, SystemCall.unlink,

        // An export that comes while the VM runs is opened anew by /proc/self/fd.
        SystemCall.openat,
    ];

    // The serial console's output is looked at before it is written to.
    // A page of a mapped file that is not there: the file's length, lseek(2), tells which pages are to be replaced (DaxWindow).
    private static readonly SystemCall[] Vcpu = [SystemCall.eventfd2, SystemCall.poll, SystemCall.lseek];

    private static readonly SystemCall[] Disk =
    [
        SystemCall.preadv, SystemCall.pwritev, SystemCall.pread64, SystemCall.pwrite64, SystemCall.fsync, SystemCall.fdatasync,
        SystemCall.fallocate,
    ];

    private static readonly SystemCall[] Files =
    [
        SystemCall.preadv2, SystemCall.pwritev2, SystemCall.ftruncate, SystemCall.fstat, SystemCall.newfstatat, SystemCall.statx,
        SystemCall.lseek, SystemCall.readv, SystemCall.writev, SystemCall.fcntl, SystemCall.poll, SystemCall.eventfd2,
        SystemCall.openat, SystemCall.openat2, SystemCall.getdents64, SystemCall.readlinkat, SystemCall.mkdirat,
        SystemCall.mknodat, SystemCall.unlinkat, SystemCall.unlink, SystemCall.renameat, SystemCall.renameat2, SystemCall.linkat,
        SystemCall.symlinkat, SystemCall.fchmod, SystemCall.fchmodat, SystemCall.fchown, SystemCall.fchownat,
        SystemCall.utimensat, SystemCall.copy_file_range, SystemCall.syncfs, SystemCall.statfs, SystemCall.fstatfs,
        SystemCall.flock, SystemCall.getxattr, SystemCall.setxattr, SystemCall.listxattr, SystemCall.removexattr,
        SystemCall.fgetxattr, SystemCall.fsetxattr, SystemCall.flistxattr, SystemCall.fremovexattr,
        SystemCall.geteuid, SystemCall.getegid, SystemCall.getuid, SystemCall.setresuid, SystemCall.setresgid, SystemCall.setgroups,
        SystemCall.capget, SystemCall.capset, SystemCall.umask, SystemCall.fchdir, SystemCall.faccessat,
        SystemCall.faccessat2, SystemCall.timerfd_settime,

        // What others change of the files that the guest watches.
        SystemCall.inotify_add_watch, SystemCall.inotify_rm_watch,

        // Whether a FIFO of the host has a writer.
        SystemCall.tee,

        // A socket that the guest makes where the host is to listen in its place: it is received unbound, and given the name.
        SystemCall.recvmsg, SystemCall.bind,
    ];

    private static readonly SystemCall[] Network = [SystemCall.readv, SystemCall.writev, SystemCall.timerfd_settime];

    // The runtime looks for files of /proc and /sys, and goes on without them.
    private static readonly SystemCall[] Lookups =
    [
        SystemCall.open, SystemCall.access, SystemCall.readlink, SystemCall.stat, SystemCall.lstat, SystemCall.fstat,
        SystemCall.openat, SystemCall.statx, SystemCall.newfstatat, SystemCall.faccessat, SystemCall.readlinkat,
        SystemCall.sched_getaffinity, SystemCall.getrusage, SystemCall.uname, SystemCall.prlimit64,
    ];

    private static readonly uint[] VcpuIoctls =
    [
        KvmAbi.KVM_RUN, KvmAbi.KVM_GET_REGS, KvmAbi.KVM_SET_REGS, KvmAbi.KVM_GET_SREGS, KvmAbi.KVM_SET_SREGS, KvmAbi.KVM_GET_XSAVE,
        KvmAbi.KVM_SET_XSAVE, KvmAbi.KVM_GET_XSAVE2, KvmAbi.KVM_GET_XCRS, KvmAbi.KVM_SET_XCRS, KvmAbi.KVM_GET_VCPU_EVENTS,
        KvmAbi.KVM_SET_VCPU_EVENTS, KvmAbi.KVM_GET_MSRS, KvmAbi.KVM_GET_DEBUGREGS, KvmAbi.KVM_SET_DEBUGREGS,

        // The vCPU whose driver is ready, or resets its device, makes or removes the events of the queues.
        KvmAbi.KVM_IRQFD, KvmAbi.KVM_IOEVENTFD,
    ];

    // What makes a vCPU, on the thread that is to run it; once it runs, the thread has them no more.
    private static readonly uint[] SpareVcpuIoctls =
    [
        KvmAbi.KVM_CREATE_VCPU, KvmAbi.KVM_SET_CPUID2, KvmAbi.KVM_SET_MSRS, KvmAbi.KVM_GET_LAPIC, KvmAbi.KVM_SET_LAPIC,
    ];

    // The first two when the machine is taken apart, the third when RAM is added.
    private static readonly uint[] DeviceIoctls =
    [
        KvmAbi.KVM_IRQFD, KvmAbi.KVM_IOEVENTFD, KvmAbi.KVM_SET_USER_MEMORY_REGION, (uint)Libc.TIOCGWINSZ,
        Libc.TUNGETIFF, Libc.TUNSETVNETHDRSZ, Libc.TUNSETOFFLOAD, Libc.TUNSETQUEUE,
    ];

    // The state of a machine that is saved: reading it, and writing its memory without the holes.
    private static readonly uint[] SavedVcpuIoctls = [KvmAbi.KVM_GET_MP_STATE, KvmAbi.KVM_GET_LAPIC];
    private static readonly uint[] SavedDeviceIoctls = [KvmAbi.KVM_GET_IRQCHIP, KvmAbi.KVM_GET_CLOCK];
    private static readonly SystemCall[] SavedDevice = [SystemCall.pwrite64, SystemCall.ftruncate, SystemCall.lseek];

    // What lsattr and chattr ask of regular files and directories.
    private static readonly uint[] FilesIoctls =
    [
        Libc.FS_IOC_GETFLAGS, Libc.FS_IOC_SETFLAGS, Libc.FS_IOC_FSGETXATTR, Libc.FS_IOC_FSSETXATTR,
    ];

    /// <summary>The rules of a kind of thread.</summary>
    /// <param name="kind">The kind.</param>
    /// <param name="process">This process's id, the only one that its threads may signal.</param>
    /// <param name="saves">The machine may be saved.</param>
    /// <param name="grows">vCPUs may come later.</param>
    public static IReadOnlyList<SystemCallRule> For(ThreadKind kind, int process, bool saves = false, bool grows = false)
    {
        // First what is called most: the filter is read from its start.
        List<SystemCallRule> rules = [];
        uint[] ioctls = kind switch
        {
            ThreadKind.Any => [.. (grows ? Spares() : Vcpus()).Union(Devices()).Union(FilesIoctls)],
            ThreadKind.Vcpu => Vcpus(),
            ThreadKind.SpareVcpu => Spares(),
            ThreadKind.Device => Devices(),
            ThreadKind.Files => FilesIoctls,
            _ => [],
        };
        if (ioctls.Length > 0)
        {
            rules.Add(SystemCallRule.WhenArgument(SystemCall.ioctl, 1, uint.MaxValue, ioctls));
        }

        IEnumerable<SystemCall> calls = saves && kind is ThreadKind.Device ? CallsOf(kind).Union(SavedDevice) : CallsOf(kind);
        rules.AddRange(calls.Select(SystemCallRule.Allow));
        rules.Add(SystemCallRule.WhenArgument(SystemCall.mmap, 2, ProtExec, 0));
        rules.Add(SystemCallRule.WhenArgument(SystemCall.mprotect, 2, ProtExec, 0));
        rules.Add(SystemCallRule.WhenArgument(SystemCall.tgkill, 0, uint.MaxValue, (uint)process));
        if (kind is ThreadKind.Any or ThreadKind.SpareVcpu)
        {
            // A thread's own filter, which can only take away.
            rules.Add(SystemCallRule.WhenArgument(SystemCall.seccomp, 0, uint.MaxValue, Libc.SECCOMP_SET_MODE_FILTER));
        }

        if (kind is ThreadKind.Any or ThreadKind.Device)
        {
            rules.Add(SystemCallRule.WhenArgument(SystemCall.socket, 0, uint.MaxValue, Libc.AF_UNIX));
        }

        if (kind is ThreadKind.Any or ThreadKind.Files)
        {
            rules.Add(SystemCallRule.WhenArgument(SystemCall.unshare, 0, uint.MaxValue, Libc.CLONE_FS));
            rules.Add(SystemCallRule.WhenArgument(SystemCall.prctl, 0, uint.MaxValue, Libc.PR_GET_SECUREBITS));
        }

        HashSet<SystemCall> known = [.. rules.Select(r => r.Number)];
        rules.AddRange(Lookups.Where(n => !known.Contains(n)).Select(n => SystemCallRule.Fail(n, Errno.EACCES)));
        return rules;

        uint[] Vcpus() => saves ? [.. VcpuIoctls, .. SavedVcpuIoctls] : VcpuIoctls;
        uint[] Spares() => [.. Vcpus().Union(SpareVcpuIoctls)];
        uint[] Devices() => saves ? [.. DeviceIoctls, .. SavedDeviceIoctls] : DeviceIoctls;
    }

    /// <summary>The calls that are carried out whatever their arguments.</summary>
    private static IEnumerable<SystemCall> CallsOf(ThreadKind kind) => kind switch
    {
        ThreadKind.Runtime => Runtime,
        ThreadKind.Device => [.. Runtime, .. Loop, .. Device],
        ThreadKind.Vcpu => [.. Runtime, .. Vcpu],
        ThreadKind.SpareVcpu => [.. Runtime, .. Vcpu, SystemCall.capset],
        ThreadKind.Files => [.. Runtime, .. Loop, .. Disk, .. Files],
        ThreadKind.Disk => [.. Runtime, .. Loop, .. Disk],
        ThreadKind.Memory => [.. Runtime, .. Loop],
        ThreadKind.Network => [.. Runtime, .. Loop, .. Network],
        _ => Enum.GetValues<ThreadKind>().Where(k => k is not ThreadKind.Any).SelectMany(CallsOf).Distinct(),
    };
}
