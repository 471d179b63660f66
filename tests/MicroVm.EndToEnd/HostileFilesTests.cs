using MicroVm.EndToEnd.Support;
using MicroVm.VmmControl;

namespace MicroVm.EndToEnd;

/// <summary>A guest kernel that asks a virtio-fs device for handles without end and for work without end: both have bounds.</summary>
public sealed class HostileFilesTests
{
    private const long ResidentBound = 80 << 10;

    // The most handles, as many inodes' descriptors, and the rest of the VMM's.
    private const int DescriptorBound = (2 * 65_536) + 8_192 + 512;
    private const int ENFILE = 23;

    [SkippableFact]
    public void HandlesThatAreNeverReleasedEndInAnError()
    {
        Installation.RequireKvm();
        using BareVm vm = BareVm.Start(folder => Config(folder, "attack=handles"));
        vm.WaitForSerial("DONE");
        Assert.Equal($"START\nOPENDIR {ENFILE}\nOPEN {ENFILE}\nDONE\n", vm.Serial);
        ControlResponse answer = vm.Ask(ControlOperation.Info);
        Assert.InRange(answer.Info!.Counters["fs0.handles"], 1, 65_536);
        Assert.InRange(vm.AnonymousKiB(), 0, ResidentBound);
        Assert.InRange(vm.Descriptors(), 0, DescriptorBound);
        Stop(vm);
    }

    [SkippableFact]
    public void AResetWaitsForTheRequestUnderWayAlone()
    {
        Installation.RequireKvm();
        using BareVm vm = BareVm.Start(folder => Config(folder, "attack=long"));
        vm.WaitForSerial("KICK");
        Assert.Equal("running", vm.Ask(ControlOperation.Info).Info!.State);
        vm.WaitForSerial("DONE");
        Assert.Equal("START\nKICK\nRESET\nDONE\n", vm.Serial);
        Assert.InRange(vm.AnonymousKiB(), 0, ResidentBound);
        Stop(vm);
    }

    private static void Stop(BareVm vm)
    {
        Assert.Null(vm.Ask(ControlOperation.Stop).Error);
        (VmmExitCode code, _, string error) = vm.Wait();
        Assert.Equal(VmmExitCode.Stopped, code);
        Assert.DoesNotContain("   at ", error, StringComparison.Ordinal);
    }

    private static VmmConfig Config(string folder, string attack)
    {
        string tree = Directory.CreateDirectory(Path.Combine(folder, "tree")).FullName;
        File.WriteAllBytes(Path.Combine(tree, "from"), new byte[64 << 20]);
        File.WriteAllText(Path.Combine(tree, "to"), "");
        return new VmmConfig
        {
            Kernel = FileReference.FromPath(Installation.GuestProgram("hostile-fs.kernel")),
            CommandLine = attack,
            MemoryMiB = 64,
            Fs = [new FsConfig { Tag = "tree", Exports = [new FsExport { Name = "tree", File = FileReference.FromPath(tree) }] }],
        };
    }
}
