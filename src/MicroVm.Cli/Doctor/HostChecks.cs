using System.Globalization;
using MicroVm.Kvm;
using MicroVm.Kvm.Native;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Configuration;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Cli.Doctor;

/// <summary>The checks of <c>doctor</c>.</summary>
internal static class HostChecks
{
    private static readonly (string Name, uint Capability)[] Required =
    [
        ("KVM_CAP_IRQCHIP", KvmAbi.KVM_CAP_IRQCHIP), ("KVM_CAP_USER_MEMORY", KvmAbi.KVM_CAP_USER_MEMORY),
        ("KVM_CAP_IRQFD", KvmAbi.KVM_CAP_IRQFD), ("KVM_CAP_IOEVENTFD", KvmAbi.KVM_CAP_IOEVENTFD),
        ("KVM_CAP_IMMEDIATE_EXIT", KvmAbi.KVM_CAP_IMMEDIATE_EXIT), ("KVM_CAP_XSAVE", KvmAbi.KVM_CAP_XSAVE),
        ("KVM_CAP_XCRS", KvmAbi.KVM_CAP_XCRS), ("KVM_CAP_VCPU_EVENTS", KvmAbi.KVM_CAP_VCPU_EVENTS),
    ];

    /// <summary>Every finding, in the order of their telling.</summary>
    /// <param name="configuration">What is in force on this host.</param>
    internal static IReadOnlyList<Finding> All(RuntimeConfiguration configuration)
    {
        RuntimeFiles files = RuntimeFiles.Locate(configuration.Kernel);
        return
        [
            User(), .. Kvm(files), Memory(configuration.MemoryMiB ?? VmShape.DefaultMemoryMiB), Cgroup(), .. Parts(files), Tun(), NotNeeded(),
            OpenFiles(), .. IsolationChecks.All(), .. EngineChecks.All(Environment.ProcessPath ?? "microvm"), .. ConfigurationChecks.All(configuration),
        ];
    }

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

    private static Finding HostKind(RuntimeFiles files) => HardwareVirtualization.IsPresent
            ? new(FindingState.Ok, "kind of host", "standard: VT-x or AMD-V runs the guest's kernel on the processor")
            : files.PvmKernel is { } kernel
            ? new(FindingState.Ok, "kind of host", $"pvm: no VT-x or AMD-V; {kernel} runs where KVM does not emulate it")
            : new(
                FindingState.Note,
                "kind of host",
                $"pvm: no VT-x or AMD-V, and no {RuntimeFiles.PvmKernelName} in {RuntimeFiles.Folder} (make install brings it): KVM emulates the guest's kernel; containers run, each start and system call takes longer");

    private static Finding Memory(int vmMemory)
    {
        long available = Host.AvailableMemoryMiB;
        string detail = string.Create(CultureInfo.InvariantCulture, $"{available} of {Host.MemoryMiB} MiB available; a VM has {vmMemory} MiB by default");
        return available >= vmMemory
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
            ("VMM", files.Vmm, true), ("guest kernel", KernelOfHost(files), false), ("guest agent", files.AgentImage, false),
        })
        {
            int wanted = program ? Libc.X_OK | Libc.R_OK : Libc.R_OK;
            yield return Libc.access(path, wanted) == 0
                ? new(FindingState.Ok, subject, path)
                : new(FindingState.Missing, subject, $"{path}: {LinuxException.Text(Check.LastErrno).ToLowerInvariant()}; {Cure}");
        }
    }

    private static string KernelOfHost(RuntimeFiles files) => !HardwareVirtualization.IsPresent && files.PvmKernel is { } pvm ? pvm : files.Kernel;

    private static Finding Tun()
    {
        const string device = "/dev/net/tun";
        int fd = Libc.open(device, Libc.O_RDWR | Libc.O_CLOEXEC, 0);
        if (fd >= 0)
        {
            _ = Libc.close(fd);
            return new(FindingState.Ok, device, "can be opened; each network interface of a container is a tap on the host");
        }

        return new(
            FindingState.Note, device,
            $"cannot be opened: {LinuxException.Text(Check.LastErrno).ToLowerInvariant()}; containers with network interfaces cannot start, those with loopback only can: load the module (modprobe tun), and in a container pass the device (--device {device})");
    }

    /// <summary>A guest that walks a large tree makes its VMM hold a descriptor for each file.</summary>
    private static unsafe Finding OpenFiles()
    {
        const ulong wanted = 1 << 20;
        Libc.rlimit limit = default;
        _ = Libc.getrlimit(Libc.RLIMIT_NOFILE, &limit);
        bool raise = ProcessStatus.HasCapability(Libc.CAP_SYS_RESOURCE);
        string detail = string.Create(CultureInfo.InvariantCulture, $"RLIMIT_NOFILE {limit.rlim_cur}, at most {limit.rlim_max}");
        return limit.rlim_max >= wanted || raise
            ? new(FindingState.Ok, "open files", raise ? detail + "; raised for each VM (CAP_SYS_RESOURCE)" : detail)
            : new(
                FindingState.Note, "open files",
                $"{detail}, and no CAP_SYS_RESOURCE to raise it: a container that looks at more files than that gets errors; set LimitNOFILE={wanted} for the engine's service, or ulimit -Hn");
    }

    private static Finding NotNeeded() => new(FindingState.Ok, "/dev/vhost-vsock", "not needed: the VMM has its own vsock");
}
