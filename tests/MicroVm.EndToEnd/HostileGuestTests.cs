using System.Diagnostics;
using MicroVm.EndToEnd.Support;
using MicroVm.VmmControl;

namespace MicroVm.EndToEnd;

/// <summary>A guest kernel that attacks every device from inside: the VMM neither ends nor grows, and nothing outside changes.</summary>
public sealed class HostileGuestTests
{
    private const long ResidentBound = 48 << 10;
    private const int DescriptorBound = 256;
    private const int DiskBytes = 1 << 16;

    // A device's eight rules and its count, and one more for the process.
    private const int LinesBound = (6 * 9) + 1;
    private static readonly string[] Devices = ["rng", "console", "vsock", "fs0", "blk0", "blk1"];

    [SkippableFact]
    public void TheVmmStandsWhateverTheGuestDoesToItsDevices()
    {
        Installation.RequireKvm();
        using BareVm vm = BareVm.Start(folder => Config(folder, "attack=once"));
        vm.WaitForSerial("DONE");

        // Every well-formed attack was answered; what is asked for properly was done, or those of it that failed would prove nothing.
        Assert.Equal("START\nASKED\nFLOODED\nDONE\n", vm.Serial);
        ControlResponse answer = vm.Ask(ControlOperation.Info);
        Assert.Null(answer.Error);
        IReadOnlyDictionary<string, long> counters = answer.Info!.Counters;
        foreach (string device in Devices)
        {
            Assert.True(counters[$"{device}.violations"] > 0, $"{device} was not attacked");
        }

        Assert.True(counters["vsock.tx.packets"] > 0, "no vsock packet was sent");
        AssertBounded(vm);
        AssertNothingOutsideChanged(vm);

        Assert.Null(vm.Ask(ControlOperation.Stop).Error);
        (VmmExitCode code, _, string error) = vm.Wait();
        Assert.Equal(VmmExitCode.Stopped, code);
        AssertLog(error);

        // Rules were broken more often than there are lines for.
        Assert.Matches(@"the guest's driver broke rules [1-9]\d* more times", error);
    }

    [SkippableFact]
    public void TheVmmAnswersAndDoesNotGrowUnderAFloodWithoutEnd()
    {
        Installation.RequireKvm();
        using BareVm vm = BareVm.Start(folder => Config(folder, "attack=sustain"));
        vm.WaitForSerial("START");
        int threads = vm.Threads();
        long packets = 0;
        Stopwatch watch = Stopwatch.StartNew();
        for (int asked = 0; watch.Elapsed < TimeSpan.FromSeconds(4); asked++)
        {
            ControlResponse answer = vm.Ask(ControlOperation.Info);
            Assert.Null(answer.Error);
            Assert.Equal("running", answer.Info!.State);
            packets = answer.Info.Counters["vsock.tx.packets"];
            AssertBounded(vm);
            Assert.InRange(vm.Threads(), 1, threads + Devices.Length);
            Thread.Sleep(100);
        }

        Assert.True(vm.Ask(ControlOperation.Info).Info!.Counters["vsock.tx.packets"] >= packets, "the flood went backwards");
        AssertNothingOutsideChanged(vm);

        // It can be stopped between two instructions, flood or not.
        Assert.Null(vm.Ask(ControlOperation.Pause).Error);
        Assert.Equal("paused", vm.Ask(ControlOperation.Info).Info!.State);
        Assert.Null(vm.Ask(ControlOperation.Resume).Error);
        Assert.Null(vm.Ask(ControlOperation.Stop).Error);
        (VmmExitCode code, _, string error) = vm.Wait();
        Assert.Equal(VmmExitCode.Stopped, code);
        AssertLog(error);
    }

    private static void AssertBounded(BareVm vm)
    {
        Assert.InRange(vm.AnonymousKiB(), 0, ResidentBound);
        Assert.InRange(vm.Descriptors(), 0, DescriptorBound);
    }

    private static void AssertNothingOutsideChanged(BareVm vm)
    {
        Assert.DoesNotContain("ESCAPE", vm.Serial, StringComparison.Ordinal);
        Assert.Equal(DiskBytes, new FileInfo(Path.Combine(vm.Folder, "disk")).Length);
        Assert.All(File.ReadAllBytes(Path.Combine(vm.Folder, "read-only")), b => Assert.Equal(0, b));
        Assert.Equal("secret", File.ReadAllText(Path.Combine(vm.Folder, "secret")));

        // But for 0/0, which opens nothing and which everybody may make.
        string nodes = Shell.Run("find", Path.Combine(vm.Folder, "tree"), "(", "-type", "b", "-o", "-type", "c", ")", "-exec", "stat", "-c", "%F %t:%T", "{}", "+").StandardOutput;
        Assert.All(nodes.Split('\n', StringSplitOptions.RemoveEmptyEntries), node => Assert.Equal("character special file 0:0", node));
        Assert.Equal(
            ["control", "disk", "read-only", "secret", "serial", "tree", "vm.json", "vsock"],
            Directory.EnumerateFileSystemEntries(vm.Folder).Select(p => Path.GetFileName(p)!).Order(StringComparer.Ordinal));
    }

    private static void AssertLog(string error)
    {
        Assert.Contains("the guest's driver broke a rule", error, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", error, StringComparison.Ordinal);
        Assert.InRange(error.Split('\n').Length, 1, LinesBound);
    }

    private static VmmConfig Config(string folder, string attack)
    {
        string tree = Directory.CreateDirectory(Path.Combine(folder, "tree")).FullName;
        File.WriteAllText(Path.Combine(folder, "secret"), "secret");
        File.WriteAllText(Path.Combine(tree, "f"), "content");
        File.CreateSymbolicLink(Path.Combine(tree, "out"), "../secret");
        File.WriteAllBytes(Path.Combine(folder, "disk"), new byte[DiskBytes]);
        File.WriteAllBytes(Path.Combine(folder, "read-only"), new byte[DiskBytes]);
        return new VmmConfig
        {
            Kernel = FileReference.FromPath(Installation.GuestProgram("hostile.kernel")),
            CommandLine = attack,
            MemoryMiB = 64,
            Console = new ConsoleConfig { Output = FileReference.FromPath("/dev/null") },
            Vsock = new VsockConfig { SocketPath = Path.Combine(folder, "vsock") },
            Fs = [new FsConfig { Tag = "tree", Exports = [new FsExport { Name = "tree", File = FileReference.FromPath(tree) }] }],
            Block =
            [
                new BlockConfig { File = FileReference.FromPath(Path.Combine(folder, "disk")) },
                new BlockConfig { File = FileReference.FromPath(Path.Combine(folder, "read-only")), ReadOnly = true },
            ],
        };
    }
}
