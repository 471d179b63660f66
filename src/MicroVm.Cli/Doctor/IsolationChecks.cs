namespace MicroVm.Cli.Doctor;

/// <summary>What of the host decides how well VMs are kept apart: side channels, swap, security modules (docs/SECURITY.md).</summary>
internal static class IsolationChecks
{
    private const string Vulnerabilities = "/sys/devices/system/cpu/vulnerabilities";

    /// <summary>Every finding.</summary>
    internal static IEnumerable<Finding> All() => [Smt(), Speculation(), Ksm(), Swap(), .. SecurityModules()];

    private static Finding Smt() => HostText.Read("/sys/devices/system/cpu/smt/active") switch
    {
        "1" => new(FindingState.Note, "SMT", "on: two VMs may share a core at the same time; for mutually hostile tenants boot with nosmt, or give each its cores (linux.resources.cpu.cpus)"),
        "0" => new(FindingState.Ok, "SMT", "off"),
        _ => new(FindingState.Note, "SMT", "the kernel does not tell"),
    };

    private static Finding Speculation()
    {
        if (!Directory.Exists(Vulnerabilities))
        {
            return new(FindingState.Note, "speculation", "the kernel does not tell of the processor's vulnerabilities");
        }

        string[] open = [.. Directory.GetFiles(Vulnerabilities)
            .Where(f => HostText.Read(f) is { } state && state.Contains("Vulnerable", StringComparison.Ordinal))
            .Select(f => Path.GetFileName(f)!).Order(StringComparer.Ordinal)];
        return open.Length == 0
            ? new(FindingState.Ok, "speculation", "the kernel mitigates every vulnerability that it knows of this processor")
            : new(FindingState.Note, "speculation", $"not or not wholly mitigated: {string.Join(' ', open)}; see {Vulnerabilities}, remove mitigations=off, update microcode");
    }

    private static Finding Ksm() => HostText.Read("/sys/kernel/mm/ksm/run") switch
    {
        "1" => new(FindingState.Note, "KSM", "on: equal pages of programs that ask for it are merged, which tells tenants of each other's; VMs here do not ask, other VMMs may: echo 0 >/sys/kernel/mm/ksm/run"),
        null => new(FindingState.Ok, "KSM", "not in this kernel"),
        _ => new(FindingState.Ok, "KSM", "off"),
    };

    private static Finding Swap() => (HostText.Read("/proc/swaps") ?? "").Split('\n').Length > 1
        ? new(FindingState.Note, "swap", "on: memory of guests may be written to disk; encrypt it, or turn it off (swapoff -a)")
        : new(FindingState.Ok, "swap", "off");

    private static IEnumerable<Finding> SecurityModules()
    {
        const string inside = "profiles and labels of containers have no effect inside a VM, the guest has neither";
        yield return HostText.Read("/sys/module/apparmor/parameters/enabled") == "Y"
            ? new(FindingState.Note, "AppArmor", $"on, this process is {HostText.Read("/proc/self/attr/current") ?? "unconfined"}; {inside}; a profile of the engine's must let microvm use /dev/kvm, /dev/net/tun and mounts")
            : new(FindingState.Ok, "AppArmor", "off");
        yield return HostText.Read("/sys/fs/selinux/enforce") is { } enforce
            ? new(FindingState.Note, "SELinux", $"{(enforce == "1" ? "enforcing" : "permissive")}; {inside}; files of volumes must be accessible to microvm's own domain")
            : new(FindingState.Ok, "SELinux", "off");
    }
}
