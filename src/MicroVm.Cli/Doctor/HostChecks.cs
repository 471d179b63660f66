using System.Globalization;
using System.Runtime.Intrinsics.X86;
using MicroVm.Kvm;
using MicroVm.Kvm.Native;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Cli.Doctor;

/// <summary>The checks of <c>doctor</c>.</summary>
internal static class HostChecks
{
    private const int VmxBit = 1 << 5, SvmBit = 1 << 2;

    private static readonly (string Name, uint Capability)[] Required =
    [
        ("KVM_CAP_IRQCHIP", KvmAbi.KVM_CAP_IRQCHIP), ("KVM_CAP_USER_MEMORY", KvmAbi.KVM_CAP_USER_MEMORY),
        ("KVM_CAP_IRQFD", KvmAbi.KVM_CAP_IRQFD), ("KVM_CAP_IOEVENTFD", KvmAbi.KVM_CAP_IOEVENTFD),
        ("KVM_CAP_IMMEDIATE_EXIT", KvmAbi.KVM_CAP_IMMEDIATE_EXIT), ("KVM_CAP_XSAVE", KvmAbi.KVM_CAP_XSAVE),
        ("KVM_CAP_XCRS", KvmAbi.KVM_CAP_XCRS), ("KVM_CAP_VCPU_EVENTS", KvmAbi.KVM_CAP_VCPU_EVENTS),
    ];

    /// <summary>Every finding, in the order of their telling.</summary>
    internal static IReadOnlyList<Finding> All() =>
        [User(), .. Kvm(RuntimeFiles.Locate()), Memory(), Cgroup(), .. Parts(RuntimeFiles.Locate()), Tun(), NotNeeded()];

    private static Finding User() => Prerequisites.UserProblem() is { } problem
        ? new(FindingState.Missing, "user", problem)
        : new(FindingState.Ok, "user", "root");

    private static IEnumerable<Finding> Kvm(RuntimeFiles files)
    {
        if (Prerequisites.KvmProblem() is { } problem)
        {
            yield return new(FindingState.Missing, Prerequisites.KvmDevice, problem);
            yield break;
        }

        yield return new(FindingState.Ok, Prerequisites.KvmDevice, "can be opened");
        using KvmSystem? kvm = Open(out string? failure);
        if (kvm is null)
        {
            yield return new(FindingState.Missing, "KVM API", failure!);
            yield break;
        }

        yield return new(FindingState.Ok, "KVM API", "version 12");
        string[] missing = [.. Required.Where(r => kvm.CheckExtension(r.Capability) == 0).Select(r => r.Name)];
        yield return missing.Length == 0
            ? new(FindingState.Ok, "KVM capabilities", $"all {Required.Length} that are needed")
            : new(FindingState.Missing, "KVM capabilities", $"{string.Join(' ', missing)}: the host's kernel is too old; 4.20 or later has them");
        yield return HostKind(files);
    }

    private static KvmSystem? Open(out string? failure)
    {
        try
        {
            failure = null;
            return KvmSystem.Open();
        }
        catch (KvmUnavailableException e)
        {
            failure = e.Message;
            return null;
        }
    }

    private static Finding HostKind(RuntimeFiles files)
    {
        bool hardware = (X86Base.CpuId(1, 0).Ecx & VmxBit) != 0 || (X86Base.CpuId(unchecked((int)0x8000_0001), 0).Ecx & SvmBit) != 0;
        return hardware
            ? new(FindingState.Ok, "kind of host", "standard: VT-x or AMD-V runs the guest's kernel on the processor")
            : files.PvmKernel is { } kernel
            ? new(FindingState.Ok, "kind of host", $"pvm: no VT-x or AMD-V; {kernel} runs where KVM does not emulate it")
            : new(
                FindingState.Note,
                "kind of host",
                $"pvm: no VT-x or AMD-V, and no {RuntimeFiles.PvmKernelName} in {RuntimeFiles.Folder} (make install brings it): KVM emulates the guest's kernel; containers run, each start and system call takes longer");
    }

    private static Finding Memory()
    {
        long available = Host.AvailableMemoryMiB;
        string detail = string.Create(CultureInfo.InvariantCulture, $"{available} of {Host.MemoryMiB} MiB available; a VM has {VmShape.DefaultMemoryMiB} MiB by default");
        return available >= VmShape.DefaultMemoryMiB
            ? new(FindingState.Ok, "memory", detail)
            : new(FindingState.Missing, "memory", detail + ": free some, or use --vm-memory");
    }

    private static Finding Cgroup()
    {
        bool v2 = File.Exists("/sys/fs/cgroup/cgroup.controllers");
        return new(
            FindingState.Ok, "cgroups", v2 ? "version 2; containers' own limits are set inside the VM" : "version 1 or none; containers' own limits are set inside the VM, with version 2");
    }

    private static IEnumerable<Finding> Parts(RuntimeFiles files)
    {
        const string Cure = $"run make install, or name its folder in {RuntimeFiles.FolderVariable}";
        foreach ((string subject, string path, bool program) in new[]
        {
            ("VMM", files.Vmm, true), ("guest kernel", files.Kernel, false), ("guest agent", files.AgentImage, false),
        })
        {
            int wanted = program ? Libc.X_OK | Libc.R_OK : Libc.R_OK;
            yield return Libc.access(path, wanted) == 0
                ? new(FindingState.Ok, subject, path)
                : new(FindingState.Missing, subject, $"{path}: {LinuxException.Text(Check.LastErrno).ToLowerInvariant()}; {Cure}");
        }
    }

    private static Finding Tun() => File.Exists("/dev/net/tun")
        ? new(FindingState.Ok, "/dev/net/tun", "present (containers have loopback only for now)")
        : new(FindingState.Note, "/dev/net/tun", "not present; containers have loopback only for now and do not need it");

    private static Finding NotNeeded() => new(FindingState.Ok, "/dev/vhost-vsock", "not needed: the VMM has its own vsock");
}
