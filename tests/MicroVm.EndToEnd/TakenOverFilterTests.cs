using MicroVm.EndToEnd.Support;
using MicroVm.Linux.Native;
using MicroVm.VmmControl;

namespace MicroVm.EndToEnd;

/// <summary>
/// A VMM that was taken over, thread by thread: a call that its kind does not need ends the whole process, by the filter that the thread has
/// in fact. Each try takes a VM, so every kind has those that would lead out, and the other calls are shared among the kinds.
/// </summary>
public sealed class TakenOverFilterTests
{
    private const int KilledBySigSys = 128 + 31;
    private const long CLONE_VM_THREAD = 0x3d0f00, AF_INET = 2, AF_NETLINK = 16, PR_SET_DUMPABLE = 4, PR_SET_SECUREBITS = 28;
    private const long KVM_CREATE_VM = 0xAE01, KVM_CREATE_VCPU = 0xAE41, KVM_SET_GSI_ROUTING = 0x4008AE6A, TIOCSTI = 0x5412;
    private const long X32 = 0x40000000, PtrAtCwd = Libc.AT_FDCWD;
    private static readonly string[] Threads = ["vcpu0", "fs0-requests", "blk0", "net0", "balloon", "microvm-vmm", ".NET Finalizer"];

    // asm/unistd_64.h; what most would want comes first, and is tried on each kind.
    private static readonly (string Name, long Number, long[] Arguments)[] Calls =
    [
        ("clone of a thread", 56, [CLONE_VM_THREAD]), ("execve", 59, []), ("mmap of code", 9, [0, 4096, 5, Libc.MAP_PRIVATE | Libc.MAP_ANONYMOUS, -1]),
        ("socket of IPv4", 41, [AF_INET, 1]), ("ptrace", 101, [16, 1]), ("mount", 165, []), ("io_uring_setup", 425, [1]), ("bpf", 321, []),
        ("open_by_handle_at", 304, []), ("ioctl KVM_CREATE_VCPU", 16, [8, KVM_CREATE_VCPU]),
        ("fork", 57, []), ("vfork", 58, []), ("clone of a process", 56, [Libc.SIGCHLD]), ("clone3", 435, []), ("execveat", 322, []), ("mprotect of code", 10, [0, 4096, 4]),
        ("socket of netlink", 41, [AF_NETLINK, 3]), ("socketpair", 53, []), ("bind", 49, []), ("listen", 50, []), ("umount2", 166, []), ("pivot_root", 155, []),
        ("chroot", 161, []), ("setns", 308, []), ("unshare of users", 272, [(long)Libc.CLONE_NEWUSER]), ("open_tree", 428, []), ("move_mount", 429, []), ("fsopen", 430, []),
        ("mount_setattr", 442, []), ("name_to_handle_at", 303, []), ("process_vm_readv", 310, []), ("process_vm_writev", 311, []), ("pidfd_open", 434, [1]),
        ("pidfd_getfd", 438, []), ("kill", 62, [1, 0]), ("tgkill of another process", 234, [1, 1, 0]), ("rt_sigqueueinfo", 129, []), ("setuid", 105, []), ("setgid", 106, []),
        ("keyctl", 250, []), ("add_key", 248, []), ("perf_event_open", 298, []), ("userfaultfd", 323, []), ("memfd_create", 319, []), ("setrlimit", 160, [2]),
        ("personality", 135, []), ("init_module", 175, []), ("kexec_load", 246, []), ("iopl", 172, [3]), ("modify_ldt", 154, []), ("swapon", 167, []), ("acct", 163, []),
        ("clock_settime", 227, []), ("sethostname", 170, []), ("quotactl", 179, []), ("prctl PR_SET_DUMPABLE", 157, [PR_SET_DUMPABLE, 1]),
        ("prctl PR_SET_SECUREBITS", 157, [PR_SET_SECUREBITS]), ("seccomp", 317, [1]), ("mknod", 133, []), ("rename", 82, []), ("open_tree of x32", 428 | X32, []),
        ("getpid of x32", 39 | X32, []), ("ioctl KVM_CREATE_VM", 16, [3, KVM_CREATE_VM]), ("ioctl KVM_SET_GSI_ROUTING", 16, [3, KVM_SET_GSI_ROUTING]),
        ("ioctl TIOCSTI", 16, [0, TIOCSTI]), ("a number that no call has", 100_000, []),
    ];

    private const int OnEachKind = 10;

    public static TheoryData<string> Kinds => [.. Threads];

    [SkippableTheory]
    [MemberData(nameof(Kinds))]
    public void WhatLeadsOutEndsTheVmm(string thread)
    {
        Installation.RequireKvm();
        int kind = Array.IndexOf(Threads, thread);
        for (int i = 0; i < Calls.Length; i++)
        {
            if (i < OnEachKind || i % Threads.Length == kind)
            {
                using BareVm vm = BareVm.StartApart(Config, out int id);
                TakenOverThread.WaitUntilFiltered(id, thread);
                using (TakenOverThread taken = TakenOverThread.Take(id, thread))
                {
                    (string name, long number, long[] arguments) = Calls[i];
                    Assert.True(taken.Call(39) > 0, "getpid was not carried out");
                    Assert.True(taken.Call(number, arguments) is null, $"{thread} may call {name}");
                }

                Assert.Equal(KilledBySigSys, (int)vm.Wait().Code);
            }
        }
    }

    /// <summary>A thread that was only looked at goes on: what these tests see is not their own doing.</summary>
    [SkippableTheory]
    [MemberData(nameof(Kinds))]
    public void WhatIsRefusedQuietlyLetsTheVmRunOn(string thread)
    {
        Installation.RequireKvm();
        using BareVm vm = BareVm.StartApart(Config, out int id);
        TakenOverThread.WaitUntilFiltered(id, thread);
        using (TakenOverThread taken = TakenOverThread.Take(id, thread))
        {
            long passwd = taken.Text("/etc/passwd");
            bool opens = thread is "fs0-requests" or "microvm-vmm";
            Assert.Equal(opens, taken.Call(257, PtrAtCwd, passwd, Libc.O_RDONLY) >= 0);
            Assert.True(taken.Call(302, 0, 2, 0, 0) < 0, "prlimit64");
        }

        Assert.Equal("running", vm.Ask(ControlOperation.Info).Info!.State);
        Assert.Null(vm.Ask(ControlOperation.Stop).Error);
        Assert.Equal(VmmExitCode.Stopped, vm.Wait().Code);
    }

    private static VmmConfig Config(string folder)
    {
        string tree = Directory.CreateDirectory(Path.Combine(folder, "tree")).FullName, disk = Path.Combine(folder, "disk");
        File.WriteAllBytes(disk, new byte[1 << 16]);
        return new VmmConfig
        {
            Kernel = FileReference.FromPath(Installation.GuestProgram("endings.kernel")),
            CommandLine = "idle",
            MemoryMiB = 64,
            Fs = [new FsConfig { Tag = "tree", Exports = [new FsExport { Name = "tree", File = FileReference.FromPath(tree) }] }],
            Block = [new BlockConfig { File = FileReference.FromPath(disk) }],
            Net = [new NetConfig()],
            Balloon = true,
        };
    }
}
