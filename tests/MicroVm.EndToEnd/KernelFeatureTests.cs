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

    /// <summary>What hardens a kernel is built in, also into the one for PVM hosts but for what stands on features of CPL 0 (kernel-config/pvm.fragment).</summary>
    [SkippableTheory]
    [InlineData("kernel.config", "VMAP_STACK RANDOMIZE_BASE RANDOMIZE_MEMORY RETPOLINE")]
    [InlineData("kernel-pvm.config", "CPL3_KERNEL")]
    public void KernelsAreHardened(string file, string more)
    {
        Installation.RequireKvm();
        string path = Path.Combine(Installation.Libexec, file);
        Skip.IfNot(File.Exists(path), $"{file} is not installed: that kernel was NOT looked at");
        string[] lines = File.ReadAllLines(path);
        const string all = "CPU_MITIGATIONS PAGE_TABLE_ISOLATION STACKPROTECTOR_STRONG STRICT_KERNEL_RWX HARDENED_USERCOPY FORTIFY_SOURCE " +
            "SLAB_FREELIST_RANDOM SLAB_FREELIST_HARDENED INIT_ON_ALLOC_DEFAULT_ON INIT_STACK_ALL_ZERO RANDOMIZE_KSTACK_OFFSET_DEFAULT SECURITY_DMESG_RESTRICT";
        Assert.All($"{all} {more}".Split(' '), option => Assert.Contains($"CONFIG_{option}=y", lines));
        Assert.All("DEVMEM PROC_KCORE KEXEC".Split(' '), option => Assert.DoesNotContain($"CONFIG_{option}=y", lines));
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
