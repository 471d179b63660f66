using MicroVm.EndToEnd.Support;
using MicroVm.VmmControl;

namespace MicroVm.EndToEnd;

/// <summary>An unmodified Debian kernel on an ordinary KVM: found by ACPI, several processors, nothing of ours in the guest.</summary>
public sealed class StockKernelTests
{
    [SkippableFact]
    public void CompressedKernelOnTwoProcessorsNeedsNoAssistance()
    {
        StockKernel.Require();
        using BareVm vm = BareVm.Start(folder => StockKernel.Config(folder, "vmlinuz", 2, "wait"));
        vm.WaitForSerial("READY");
        CheckReport(vm, 2);

        VmmInfo info = vm.Ask(ControlOperation.Info).Info!;
        Assert.Equal("standard", info.HostKind);
        Assert.Equal(0, info.Counters["exits.internal_error"]);

        // An instruction's counter appears with the first time that the VMM completes it.
        Assert.DoesNotContain(info.Counters.Keys, k => k.StartsWith("assist.", StringComparison.Ordinal));

        Assert.Null(vm.Ask(ControlOperation.Stop).Error);
        Assert.Equal(VmmExitCode.Stopped, vm.Wait().Code);
    }

    [SkippableFact]
    public void UncompressedKernelOnFourProcessorsPowersOff()
    {
        StockKernel.Require();
        using BareVm vm = BareVm.Start(folder => StockKernel.Config(folder, "vmlinux", 4, "poweroff"));
        (VmmExitCode code, _, string error) = vm.Wait();
        CheckReport(vm, 4);
        Assert.Equal(VmmExitCode.PoweredOff, code);
        Assert.Equal("", error);
    }

    [SkippableFact]
    public void ResetOfTheGuestIsTold()
    {
        StockKernel.Require();
        using BareVm vm = BareVm.Start(folder => StockKernel.Config(folder, "vmlinux", 1, "reboot"));
        Assert.Equal(VmmExitCode.Reset, vm.Wait().Code);
        CheckReport(vm, 1);
    }

    private static void CheckReport(BareVm vm, int vcpus)
    {
        string text = vm.Serial.Replace("\r", "", StringComparison.Ordinal);
        string[] lines = text.Split('\n');
        Assert.True(lines.Contains("READY"), text);
        Assert.Contains($"cpus: {vcpus}", lines);
        for (int i = 0; i < vcpus; i++)
        {
            Assert.Contains($"ran on: {i}", lines);
        }

        // What KVM filters and what we hide does not arrive; what vector code needs does.
        string[] flags = lines.Single(l => l.StartsWith("flags: ", StringComparison.Ordinal)).Split(' ');
        Assert.Superset(new HashSet<string> { "hypervisor", "xsave", "avx", "x2apic", "tsc_deadline_timer" }, flags.ToHashSet());
        Assert.DoesNotContain("svm", flags);
        Assert.DoesNotContain("vmx", flags);

        Assert.Contains("tables: APIC DSDT FACP", text, StringComparison.Ordinal);
        Assert.Contains("clock: kvm-clock", lines);
        Assert.Contains("disk: disk content", lines);
        Assert.Contains("random: 8", lines);
        Assert.Contains("file: from the host", lines);
        Assert.Contains("8 of 8 processes kept their registers", lines);
        Assert.Contains(lines, l => l.StartsWith($"{vcpus} processors: ", StringComparison.Ordinal) && l.EndsWith(" checks, 0 failed", StringComparison.Ordinal));
        Assert.Contains("warnings: 0", lines);
        Assert.Equal("back\n", File.ReadAllText(Path.Combine(vm.Folder, "tree", "new")));
        Assert.Equal("from inside", File.ReadAllText(Path.Combine(vm.Folder, "disk")).Substring(512, 11));
    }
}
