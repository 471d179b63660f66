using MicroVm.EndToEnd.Support;
using MicroVm.VmmControl;

namespace MicroVm.EndToEnd;

/// <summary>A guest kernel that attacks every device from inside: the VMM neither ends nor grows, and nothing outside changes.</summary>
public sealed class HostileGuestTests
{
    private const long ResidentBound = 48 << 10;
    private const int DescriptorBound = 256;
    private const int DiskBytes = 1 << 16;

    // A device's eight rules, its count, and one more for the process.
    private const int LinesBound = (5 * 9) + 1;

    [SkippableFact]
    public void TheVmmStandsWhateverTheGuestDoesToItsDevices()
    {
        Installation.RequireKvm();
        using BareVm vm = BareVm.Start(Config);
        vm.WaitForSerial("DONE");

        ControlResponse answer = vm.Ask(ControlOperation.Info);
        Assert.Null(answer.Error);
        IReadOnlyDictionary<string, long> counters = answer.Info!.Counters;
        foreach (string device in (string[])["rng", "console", "vsock", "fs0", "blk0"])
        {
            Assert.True(counters[$"{device}.violations"] > 0, $"{device} was not attacked");
        }

        Assert.True(counters["vsock.tx.packets"] > 0, "no vsock packet was sent");
        Assert.InRange(vm.AnonymousKiB(), 0, ResidentBound);
        Assert.InRange(vm.Descriptors(), 0, DescriptorBound);
        Assert.Equal(DiskBytes, new FileInfo(Path.Combine(vm.Folder, "disk")).Length);
        Assert.Equal("secret", File.ReadAllText(Path.Combine(vm.Folder, "secret")));

        Assert.Null(vm.Ask(ControlOperation.Stop).Error);
        (VmmExitCode code, _, string error) = vm.Wait();
        Assert.Equal(VmmExitCode.Stopped, code);
        Assert.Contains("the guest's driver broke a rule", error, StringComparison.Ordinal);
        Assert.InRange(error.Split('\n').Length, 1, LinesBound);
        Assert.DoesNotContain("   at ", error, StringComparison.Ordinal);
    }

    private static VmmConfig Config(string folder)
    {
        string tree = Directory.CreateDirectory(Path.Combine(folder, "tree")).FullName;
        File.WriteAllText(Path.Combine(folder, "secret"), "secret");
        File.CreateSymbolicLink(Path.Combine(tree, "out"), "../secret");
        File.WriteAllBytes(Path.Combine(folder, "disk"), new byte[DiskBytes]);
        return new VmmConfig
        {
            Kernel = FileReference.FromPath(Installation.GuestProgram("hostile.kernel")),
            MemoryMiB = 64,
            Console = new ConsoleConfig { Output = FileReference.FromPath("/dev/null") },
            Vsock = new VsockConfig { SocketPath = Path.Combine(folder, "vsock") },
            Fs = [new FsConfig { Tag = "tree", Exports = [new FsExport { Name = "tree", File = FileReference.FromPath(tree) }] }],
            Block = [new BlockConfig { File = FileReference.FromPath(Path.Combine(folder, "disk")) }],
        };
    }
}
