using System.Globalization;
using System.Text.RegularExpressions;
using MicroVm.Kvm.Native;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Jail;
using Xunit;
using static MicroVm.Vmm.Jail.SystemCallFilter;

namespace MicroVm.Vmm.Tests.Jail;

/// <summary>What the filters decide, by running them as the kernel does.</summary>
public sealed partial class SystemCallFilterTests
{
    private const uint Kill = 0x80000000, Allow = 0x7fff0000, Fail = 0x00050000;
    private const uint X8664 = 0xC000003E, I386 = 0x40000003;
    private static readonly string[] Needless =
    [
        "execve", "execveat", "fork", "vfork", "ptrace", "mount", "bpf", "kill", "setns", "io_uring_setup", "open_by_handle_at", "chroot", "keyctl",
        "userfaultfd", "process_vm_writev",
    ];

    [SkippableTheory]
    [InlineData(ThreadKind.Device)]
    [InlineData(ThreadKind.Vcpu)]
    [InlineData(ThreadKind.Files)]
    [InlineData(ThreadKind.Disk)]
    public void WhatNobodyNeedsEndsTheProcess(ThreadKind kind)
    {
        Instruction[] program = Compile(SystemCallSets.For(kind, 7));
        Assert.InRange(program.Length, 50, 4096);
        Dictionary<string, int> numbers = Numbers();
        Assert.All(Needless, name => Assert.Equal(Kill, Run(program, numbers[name])));
        Assert.Equal(Kill, Run(program, 100_000));
        Assert.Equal(Kill, Run(program, (int)SystemCall.read | 0x40000000));
        Assert.Equal(Kill, Run(program, (int)SystemCall.read, arch: I386));
        Assert.Equal(Allow, Run(program, (int)SystemCall.read));
        Assert.Equal(Allow, Run(program, (int)SystemCall.futex));
        Assert.Equal(Fail | (uint)Errno.ENOSYS, Run(program, (int)SystemCall.clone3));
    }

    [Fact]
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
        Assert.Equal(Kill, Run(program, (int)SystemCall.clone, [Libc.SIGCHLD]));
        Assert.Equal(Allow, Run(program, (int)SystemCall.clone, [0x3d0f00]));
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
