using System.Globalization;
using System.Text.RegularExpressions;
using MicroVm.Kvm.Native;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using Xunit;
using Xunit.Abstractions;
using static MicroVm.Jail.SystemCallFilter;

namespace MicroVm.Jail.Tests;

/// <summary>What the filters decide, by running them as the kernel does.</summary>
public sealed partial class SystemCallFilterTests(ITestOutputHelper output)
{
    private const uint Kill = 0x80000000, Allow = 0x7fff0000, Fail = 0x00050000;
    private const uint X8664 = 0xC000003E, I386 = 0x40000003;
    private static readonly string[] Needless =
    [
        "execve", "execveat", "fork", "vfork", "ptrace", "mount", "bpf", "kill", "setns", "io_uring_setup", "open_by_handle_at", "chroot", "keyctl",
        "userfaultfd", "process_vm_writev", "clone", "clone3", "setrlimit", "capset", "setuid", "personality", "pidfd_getfd", "perf_event_open",
    ];

    [SkippableTheory]
    [InlineData(ThreadKind.Device)]
    [InlineData(ThreadKind.Vcpu)]
    [InlineData(ThreadKind.SpareVcpu)]
    [InlineData(ThreadKind.Files)]
    [InlineData(ThreadKind.Disk)]
    [InlineData(ThreadKind.Memory)]
    [InlineData(ThreadKind.Network)]
    [InlineData(ThreadKind.Runtime)]
    [InlineData(ThreadKind.Any)]
    public void WhatNobodyNeedsEndsTheProcess(ThreadKind kind)
    {
        Instruction[] program = Compile(SystemCallSets.For(kind, 7));
        Assert.InRange(program.Length, 50, 4096);
        Dictionary<string, int> numbers = Numbers();

        // A file server changes its capabilities and ids; who narrows itself gives capabilities up.
        bool mayCapset = kind is ThreadKind.Files or ThreadKind.SpareVcpu or ThreadKind.Any;
        Assert.All(Needless, name => Assert.Equal(name == "capset" && mayCapset ? Allow : Kill, Run(program, numbers[name])));
        Assert.Equal(Kill, Run(program, 100_000));
        Assert.Equal(Kill, Run(program, (int)SystemCall.read | 0x40000000));
        Assert.Equal(Kill, Run(program, (int)SystemCall.read, arch: I386));
        Assert.Equal(Allow, Run(program, (int)SystemCall.read));
        Assert.Equal(Allow, Run(program, (int)SystemCall.futex));
    }

    // The list is what a review reads. A longer one is a decision: the bounds are changed with it.
    [SkippableTheory]
    [InlineData(ThreadKind.Runtime, 26)]
    [InlineData(ThreadKind.Vcpu, 30)]
    [InlineData(ThreadKind.SpareVcpu, 32)]
    [InlineData(ThreadKind.Device, 54)]
    [InlineData(ThreadKind.Memory, 29)]
    [InlineData(ThreadKind.Network, 33)]
    [InlineData(ThreadKind.Disk, 36)]
    [InlineData(ThreadKind.Files, 100)]
    public void AKindHasNoMoreCallsThanThese(ThreadKind kind, int most)
    {
        Instruction[] program = Compile(SystemCallSets.For(kind, 7));
        string[] allowed = [.. SystemCallSets.For(kind, 7).Where(r => r.Error == Errno.OK).Select(r => r.Number.ToString()).Order(StringComparer.Ordinal)];
        output.WriteLine($"{kind}: {allowed.Length} system calls, {program.Length} instructions: {string.Join(", ", allowed)}");
        Assert.InRange(allowed.Length, 1, most);

        // By number, whatever the rules say: arguments that some rule takes are tried as well.
        uint[] first = [0, 1, 2, 7, KvmAbi.KVM_RUN, KvmAbi.KVM_IRQFD, Libc.AF_UNIX, Libc.CLONE_FS, 0x3d0f00, Libc.PR_GET_SECUREBITS, Libc.FS_IOC_GETFLAGS];
        Dictionary<string, int> numbers = Numbers();
        string[] passed = [.. numbers.Where(n => first.Any(a => first.Any(b => Run(program, n.Value, [a, b]) == Allow))).Select(n => n.Key).Order(StringComparer.Ordinal)];
        Assert.Equal(allowed, passed);
    }

    // No control request that no code makes.
    [Fact]
    public void OnlyTheDeviceThreadVcpusAndFilesHaveControlRequests()
    {
        foreach (ThreadKind kind in (ThreadKind[])[ThreadKind.Disk, ThreadKind.Memory, ThreadKind.Network, ThreadKind.Runtime])
        {
            Assert.DoesNotContain(SystemCallSets.For(kind, 7), r => r.Number == SystemCall.ioctl);
        }

        // lsattr and chattr.
        uint[] files = [Libc.FS_IOC_GETFLAGS, Libc.FS_IOC_SETFLAGS, Libc.FS_IOC_FSGETXATTR, Libc.FS_IOC_FSSETXATTR];
        Assert.Equal(files, SystemCallSets.For(ThreadKind.Files, 7).Single(r => r.Number == SystemCall.ioctl).Values);

        Instruction[] device = Compile(SystemCallSets.For(ThreadKind.Device, 7)), vcpu = Compile(SystemCallSets.For(ThreadKind.Vcpu, 7));
        foreach (uint request in (uint[])[KvmAbi.KVM_SIGNAL_MSI, KvmAbi.KVM_SET_GSI_ROUTING, KvmAbi.KVM_CREATE_VCPU])
        {
            Assert.Equal((Kill, Kill), (Run(device, (int)SystemCall.ioctl, [3, request]), Run(vcpu, (int)SystemCall.ioctl, [3, request])));
        }

        // RAM is added by the event loop, and by nobody else.
        Assert.Equal((Allow, Kill), (Run(device, (int)SystemCall.ioctl, [3, KvmAbi.KVM_SET_USER_MEMORY_REGION]), Run(vcpu, (int)SystemCall.ioctl, [3, KvmAbi.KVM_SET_USER_MEMORY_REGION])));
        Assert.Equal(Kill, Run(device, (int)SystemCall.ioctl, [3, KvmAbi.KVM_RUN]));
        Assert.Equal(Kill, Run(vcpu, (int)SystemCall.ioctl, [3, (uint)Libc.TUNSETQUEUE]));
    }

    // A vCPU is created by the thread that waits for it, and by nobody else, nor once it runs.
    [Fact]
    public void OnlyTheThreadOfASpareVcpuCreatesIt()
    {
        foreach (ThreadKind kind in Enum.GetValues<ThreadKind>())
        {
            uint[] requests = [.. SystemCallSets.For(kind, 7, grows: true).Where(r => r.Number == SystemCall.ioctl).SelectMany(r => r.Values)];
            Assert.Equal(kind is ThreadKind.SpareVcpu or ThreadKind.Any, requests.Contains(KvmAbi.KVM_CREATE_VCPU));
            Assert.DoesNotContain(KvmAbi.KVM_CREATE_VM, requests);
            Assert.Equal(requests.Length, requests.Distinct().Count());
        }

        // In a VMM that does not grow there is no such thread.
        Assert.DoesNotContain(KvmAbi.KVM_CREATE_VCPU, SystemCallSets.For(ThreadKind.Any, 7).Single(r => r.Number == SystemCall.ioctl).Values);
    }

    [SkippableFact]
    public void ArgumentsDecide()
    {
        Instruction[] program = Compile(SystemCallSets.For(ThreadKind.Device, 7));
        Assert.Equal(Allow, Run(program, (int)SystemCall.mmap, [0, 0, 3]));
        Assert.Equal(Kill, Run(program, (int)SystemCall.mmap, [0, 0, 5]));
        Assert.Equal(Kill, Run(program, (int)SystemCall.mprotect, [0, 0, 7]));
        Assert.Equal(Allow, Run(program, (int)SystemCall.tgkill, [7]));
        Assert.Equal(Kill, Run(program, (int)SystemCall.tgkill, [8]));
        Assert.Equal(Allow, Run(program, (int)SystemCall.socket, [Libc.AF_UNIX]));
        Assert.Equal(Kill, Run(program, (int)SystemCall.socket, [2]));
        Dictionary<string, int> numbers = Numbers();
        Assert.Equal(Kill, Run(program, numbers["clone"], [Libc.SIGCHLD]));
        Assert.Equal(Kill, Run(program, numbers["clone"], [0x3d0f00]));
        Assert.Equal(Allow, Run(program, (int)SystemCall.ioctl, [3, KvmAbi.KVM_IRQFD]));
        Assert.Equal(Kill, Run(program, (int)SystemCall.ioctl, [3, KvmAbi.KVM_CREATE_VM]));
        Assert.Equal(Kill, Run(program, (int)SystemCall.ioctl, [3, 0x5412]));
    }

    [Fact]
    public void EachKindHasWhatItNeeds()
    {
        Instruction[] vcpu = Compile(SystemCallSets.For(ThreadKind.Vcpu, 7)), files = Compile(SystemCallSets.For(ThreadKind.Files, 7));
        Instruction[] disk = Compile(SystemCallSets.For(ThreadKind.Disk, 7));
        Assert.Equal(Allow, Run(vcpu, (int)SystemCall.ioctl, [3, KvmAbi.KVM_RUN]));
        Assert.Equal(Kill, Run(files, (int)SystemCall.ioctl, [3, KvmAbi.KVM_RUN]));
        Assert.Equal(Fail | (uint)Errno.EACCES, Run(vcpu, (int)SystemCall.openat));
        Assert.Equal(Kill, Run(vcpu, (int)SystemCall.openat2));
        Assert.Equal(Allow, Run(files, (int)SystemCall.openat2));
        Assert.Equal(Kill, Run(disk, (int)SystemCall.openat2));
        Assert.Equal(Allow, Run(disk, (int)SystemCall.preadv));
        Assert.Equal(Kill, Run(vcpu, (int)SystemCall.preadv));
        foreach (Instruction[] narrow in (Instruction[][])[vcpu, files, disk])
        {
            Assert.Equal(Kill, Run(narrow, (int)SystemCall.socket, [Libc.AF_UNIX]));
            Assert.Equal(Kill, Run(narrow, (int)SystemCall.seccomp, [1]));
        }
    }

    [Fact]
    public void NoCallIsNamedTwice()
    {
        foreach (ThreadKind kind in Enum.GetValues<ThreadKind>())
        {
            IReadOnlyList<SystemCallRule> rules = SystemCallSets.For(kind, 7);
            Assert.Equal(rules.Count, rules.Select(r => r.Number).Distinct().Count());
        }
    }

    [SkippableFact]
    public void NumbersAreTheKernels()
    {
        Dictionary<string, int> numbers = Numbers();
        Assert.All(Enum.GetValues<SystemCall>(), call => Assert.Equal(numbers[call.ToString()], (int)call));
    }

    private static Dictionary<string, int> Numbers()
    {
        const string header = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h";
        Skip.IfNot(File.Exists(header), $"{header} is not installed: system call numbers were NOT compared");
        return Definition().Matches(File.ReadAllText(header))
            .ToDictionary(m => m.Groups[1].Value, m => int.Parse(m.Groups[2].Value, CultureInfo.InvariantCulture));
    }

    // The operations of classic BPF that the compiler uses, on struct seccomp_data.
    private static uint Run(Instruction[] program, int number, ulong[]? args = null, uint arch = X8664)
    {
        uint accumulator = 0;
        for (int pc = 0; ; pc++)
        {
            Instruction i = program[pc];
            switch (i.Code)
            {
                case 0x20:
                    accumulator = i.Operand switch
                    {
                        0 => (uint)number,
                        4 => arch,
                        >= 16 and < 64 when i.Operand % 8 == 0 => (uint)(args ?? []).ElementAtOrDefault((int)(i.Operand - 16) / 8),
                        _ => throw new InvalidOperationException($"load from {i.Operand}"),
                    };
                    break;
                case 0x54:
                    accumulator &= i.Operand;
                    break;
                case 0x15:
                    pc += accumulator == i.Operand ? i.JumpTrue : i.JumpFalse;
                    break;
                case 0x35:
                    pc += accumulator >= i.Operand ? i.JumpTrue : i.JumpFalse;
                    break;
                case 0x06:
                    return i.Operand;
                default:
                    throw new InvalidOperationException($"instruction {i}");
            }
        }
    }

    [GeneratedRegex(@"#define __NR_(\w+) (\d+)")]
    private static partial Regex Definition();
}
