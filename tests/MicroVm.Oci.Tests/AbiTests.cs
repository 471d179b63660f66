using System.Reflection;
using MicroVm.Oci.Devices;
using MicroVm.Oci.Mounts;
using MicroVm.Oci.Processes;
using MicroVm.Oci.Seccomp;
using MicroVm.Oci.Tests.Support;

namespace MicroVm.Oci.Tests;

/// <summary>Numbers and names against the kernel's headers.</summary>
public sealed class AbiTests
{
    [SkippableFact]
    public void SyscallNumbersAreTheKernels()
    {
        // Calls newer than the installed headers are left out of the comparison; every call of the headers must be known.
        (int status, string headers) = CProgram.Execute("/bin/sh", ["-c", "echo '#include <asm/unistd_64.h>' | gcc -E -dM - | grep __NR_"]);
        Skip.If(status != 0, "gcc or asm/unistd_64.h is not installed");
        Dictionary<string, int> kernel = headers.Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(l => l.Split(' '))
            .Where(p => p.Length == 3 && p[1].StartsWith("__NR_", StringComparison.Ordinal))
            .ToDictionary(p => p[1]["__NR_".Length..], p => int.Parse(p[2], System.Globalization.CultureInfo.InvariantCulture));
        Assert.True(kernel.Count > 340);
        foreach ((string name, int number) in kernel)
        {
            Assert.True(SyscallTable.TryGetNumber(name, out int ours), name);
            Assert.Equal(number, ours);
        }

        Assert.DoesNotContain(SyscallTable.All, s => !kernel.ContainsKey(s.Key) && s.Value <= kernel.Values.Max() && s.Value is not (335 or 336));
        Assert.Equal(SyscallTable.All.Count, SyscallTable.All.Values.Distinct().Count());
    }

    [SkippableFact]
    public void CapabilityNumbersAreTheKernels()
    {
        Dictionary<string, ulong> kernel = CProgram.Values(["linux/capability.h"], CapabilitySets.Names.Append("CAP_LAST_CAP"));
        Assert.All(CapabilitySets.Names, (name, i) => Assert.Equal((ulong)i, kernel[name]));
        Assert.Equal(kernel["CAP_LAST_CAP"], (ulong)CapabilitySets.Names.Count - 1);
    }

    [SkippableFact]
    public void ResourceLimitNumbersAreTheKernels()
    {
        Dictionary<string, ulong> kernel = CProgram.Values(["asm/resource.h"], ResourceLimit.Names.Append("RLIM_NLIMITS"));
        Assert.All(ResourceLimit.Names, (name, i) => Assert.Equal((ulong)i, kernel[name]));
        Assert.Equal(kernel["RLIM_NLIMITS"], (ulong)ResourceLimit.Names.Count);
    }

    [SkippableFact]
    public void SchedulingNumbersAreTheKernels()
    {
        string[] policies = [.. Scheduling.Policies.Keys.Where(p => p is not ("SCHED_OTHER" or "SCHED_ISO"))];
        Dictionary<string, ulong> kernel = CProgram.Values(["linux/sched.h", "linux/ioprio.h"], policies.Concat(Scheduling.Flags.Keys).Append("IOPRIO_CLASS_SHIFT"));
        Assert.All(policies, p => Assert.Equal(kernel[p], Scheduling.Policies[p]));
        Assert.All(Scheduling.Flags, f => Assert.Equal(kernel[f.Key], f.Value));
        Assert.Equal(13UL, kernel["IOPRIO_CLASS_SHIFT"]);
    }

    [SkippableTheory]
    [InlineData(typeof(SeccompAbi), "linux/seccomp.h", "linux/audit.h")]
    public void ConstantsAreTheKernels(Type type, params string[] headers)
    {
        Dictionary<string, ulong> ours = type.GetFields(BindingFlags.Public | BindingFlags.Static)
            .Where(f => f.IsLiteral && f.Name.Contains('_', StringComparison.Ordinal) && f.Name != "X32_SYSCALL_BIT")
            .ToDictionary(f => f.Name, f => Convert.ToUInt64(f.GetRawConstantValue(), System.Globalization.CultureInfo.InvariantCulture));
        Assert.True(ours.Count > 5);
        Assert.Equal(ours.OrderBy(p => p.Key), CProgram.Values(headers, ours.Keys).OrderBy(p => p.Key));
    }

    [SkippableFact]
    public void BpfEncodingIsTheKernels()
    {
        Dictionary<string, ulong> kernel = CProgram.Values(
            ["linux/filter.h", "linux/bpf.h", "linux/seccomp.h", "stddef.h"],
            [
                "BPF_LD|BPF_W|BPF_ABS", "BPF_ALU|BPF_AND|BPF_K", "BPF_JMP|BPF_JA", "BPF_JMP|BPF_JEQ|BPF_K", "BPF_JMP|BPF_JGT|BPF_K",
                "BPF_JMP|BPF_JGE|BPF_K", "BPF_RET|BPF_K", "BPF_MAXINSNS", "BPF_LDX|BPF_MEM|BPF_W", "BPF_ALU64|BPF_MOV|BPF_K",
                "BPF_ALU64|BPF_MOV|BPF_X", "BPF_ALU64|BPF_AND|BPF_K", "BPF_ALU64|BPF_RSH|BPF_K", "BPF_JMP|BPF_JNE|BPF_K",
                "BPF_JMP|BPF_EXIT", "BPF_DEVCG_ACC_MKNOD", "BPF_DEVCG_ACC_READ", "BPF_DEVCG_ACC_WRITE", "BPF_DEVCG_DEV_BLOCK",
                "BPF_DEVCG_DEV_CHAR",
            ]);
        (string, ulong)[] expected =
        [
            ("BPF_LD|BPF_W|BPF_ABS", BpfInstruction.LoadAbsolute), ("BPF_ALU|BPF_AND|BPF_K", BpfInstruction.And),
            ("BPF_JMP|BPF_JA", BpfInstruction.Jump), ("BPF_JMP|BPF_JEQ|BPF_K", BpfInstruction.JumpEqual),
            ("BPF_JMP|BPF_JGT|BPF_K", BpfInstruction.JumpGreater), ("BPF_JMP|BPF_JGE|BPF_K", BpfInstruction.JumpGreaterOrEqual),
            ("BPF_RET|BPF_K", BpfInstruction.Return), ("BPF_MAXINSNS", BpfInstruction.MaxInstructions),
            ("BPF_LDX|BPF_MEM|BPF_W", DeviceFilterCompiler.LoadWord), ("BPF_ALU64|BPF_MOV|BPF_K", DeviceFilterCompiler.MoveImmediate),
            ("BPF_ALU64|BPF_MOV|BPF_X", DeviceFilterCompiler.MoveRegister), ("BPF_ALU64|BPF_AND|BPF_K", DeviceFilterCompiler.AndImmediate),
            ("BPF_ALU64|BPF_RSH|BPF_K", DeviceFilterCompiler.ShiftRightImmediate), ("BPF_JMP|BPF_JNE|BPF_K", DeviceFilterCompiler.JumpNotEqual),
            ("BPF_JMP|BPF_EXIT", DeviceFilterCompiler.Exit), ("BPF_DEVCG_ACC_MKNOD", (ulong)DeviceAccess.MakeNode),
            ("BPF_DEVCG_ACC_READ", (ulong)DeviceAccess.Read), ("BPF_DEVCG_ACC_WRITE", (ulong)DeviceAccess.Write),
            ("BPF_DEVCG_DEV_BLOCK", (ulong)DeviceType.Block), ("BPF_DEVCG_DEV_CHAR", (ulong)DeviceType.Character),
        ];
        Assert.All(expected, e => Assert.Equal(kernel[e.Item1], e.Item2));
    }
}
