using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>What the guest's kernel has for service meshes, nested clusters, chaos tools and databases (kernel-config/microvm.fragment).</summary>
public sealed class KernelFeatureTests
{
    // Local descriptor tables need CPL 0, which the kernel for PVM hosts gives up.
    private static readonly string[] NotOnPvm = ["modify_ldt ENOSYS"];

    [SkippableFact]
    public void SidecarsClustersAndDatabasesFindWhatTheyUse()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("/bin/kernel-features");
        bundle.AddGuestProgram("kernel-features");
        foreach (string set in new[] { "bounding", "effective", "permitted" })
        {
            bundle.Process["capabilities"]![set] = new JsonArray("CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_SYS_NICE", "CAP_SYS_PTRACE");
        }

        CommandResult result = Container.Run(bundle);
        Assert.True(result.ExitCode == 0, result.ToString());
        string[] lines = result.StandardOutput.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.True(lines.Length > 70, result.ToString());
        Assert.Equal(Installation.KvmIsOrdinary ? [] : NotOnPvm, lines.Where(l => !l.EndsWith(" ok", StringComparison.Ordinal)));
    }

    [SkippableFact]
    public void KernelAddressesAndMessagesAreForPrivilegedProcesses()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("/bin/sh", "-c", "head -n 1 /proc/kallsyms | cut -d' ' -f1; dmesg 2>&1 | head -n 1; cat /proc/sys/kernel/kptr_restrict; ls /sys/class/net | wc -l");
        string[] lines = Container.Run(bundle).StandardOutput.Split('\n');
        Assert.Equal(("0000000000000000", "1", "1"), (lines[0], lines[2], lines[3]));
        Assert.Contains("not permitted", lines[1], StringComparison.Ordinal);
    }
}
