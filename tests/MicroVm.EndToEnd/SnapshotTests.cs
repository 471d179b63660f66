using System.Globalization;
using System.Net.Sockets;
using System.Text.RegularExpressions;
using MicroVm.EndToEnd.Support;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VmmControl;

namespace MicroVm.EndToEnd;

/// <summary>A VM at work (<c>guest/snapshot-load.c</c>) that is saved and restored again and again ends with the results of one that never was.</summary>
public sealed partial class SnapshotTests : IDisposable
{
    private const int LongestMilliseconds = 25;
    private const uint FileMode = 0b110_000_000;
    private readonly string _folder = Directory.CreateTempSubdirectory("microvm-snapshots-").FullName;

    /// <summary>MICROVM_SNAPSHOT_POINTS, for more than CI's; the lab's processor is slow.</summary>
    private static int Points => int.TryParse(Environment.GetEnvironmentVariable("MICROVM_SNAPSHOT_POINTS"), CultureInfo.InvariantCulture, out int n) ? n
        : Installation.IsLab ? 20 : 60;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [SkippableTheory]
    [InlineData(1)]
    [InlineData(2)]
    public void WorkThatIsSavedAtAnyPointEndsWithTheSameResults(int vcpus)
    {
        Installation.RequireKvm();
        Skip.If(Installation.KernelCodeIsEmulated, "the guest's kernel code is emulated: a VM at work takes minutes");
        string initramfs = MakeInitramfs();
        (VmmExitCode code, string expected, string error) = Undisturbed(initramfs, vcpus);
        expected = WithoutKernel(expected);
        Assert.True(code == VmmExitCode.PoweredOff && expected.EndsWith($"{vcpus} processors, end\n", StringComparison.Ordinal), $"{code}\n{expected}{error}");
        Assert.DoesNotContain(expected.Split('\n')[1..^2], line => !line.EndsWith(" ok", StringComparison.Ordinal));

        // Where it is saved is chance; a failure's text has what the VM said until then.
        Random random = new();
        string serial = "", console = Path.Combine(_folder, "console");
        BareVm vm = Start(initramfs, vcpus, console, snapshot: null);
        int points = 0;
        try
        {
            vm.WaitForSerial("begin\r\n");
            for (; points < Points; points++)
            {
                Thread.Sleep(random.Next(LongestMilliseconds));
                string name = Path.Combine(_folder, string.Create(CultureInfo.InvariantCulture, $"{points % 2}"));
                if (!TrySave(vm, name))
                {
                    break;
                }

                serial += End(vm, VmmExitCode.Stopped);
                vm.Dispose();
                vm = Start(initramfs, vcpus, console, name);
            }

            serial += End(vm, VmmExitCode.PoweredOff);
        }
        finally
        {
            vm.Dispose();
        }

        Assert.Equal(expected, WithoutKernel(serial));
        Assert.Equal(Enumerable.Range(0, File.ReadAllLines(console).Length).Select(i => $"line {i}"), File.ReadAllLines(console));
        Assert.True(points >= Math.Min(Points, 10), $"the work was done after {points} points");
    }

    /// <summary>The kernel's words, which have the time in them and may come within a line, and the terminal's carriage returns left out.</summary>
    private static string WithoutKernel(string serial) => KernelWords().Replace(serial.Replace("\r", "", StringComparison.Ordinal), "");

    [GeneratedRegex(@"\[ *[0-9]+\.[0-9]{6}\] [^\n]*\n")]
    private static partial Regex KernelWords();

    private static string End(BareVm vm, VmmExitCode wanted)
    {
        (VmmExitCode code, string serial, string error) = vm.Wait();
        Assert.True(code == wanted, $"{code}: {error}\n{serial}");
        return serial;
    }

    private (VmmExitCode Code, string Serial, string Error) Undisturbed(string initramfs, int vcpus)
    {
        using BareVm vm = Start(initramfs, vcpus, Path.Combine(_folder, "undisturbed"), snapshot: null);
        return vm.Wait();
    }

    /// <summary>Saves the VM, which ends with it.</summary>
    /// <returns>False when it had ended by itself.</returns>
    private static bool TrySave(BareVm vm, string name)
    {
        while (!vm.HasExited)
        {
            using SafeFd state = Make(name + ".state"), memory = Make(name + ".memory");
            try
            {
                ControlResponse response = vm.Ask(new ControlRequest { Operation = ControlOperation.Save }, state, memory);
                Assert.Null(response.Error);
                return true;
            }
            catch (Exception e) when (e is IOException or SocketException or ArgumentNullException)
            {
                // It does not listen yet, or it ends.
                Thread.Sleep(1);
            }
        }

        return false;
    }

    private static SafeFd Make(string path) =>
        SafeFd.From(Libc.open(path, Libc.O_RDWR | Libc.O_CREAT | Libc.O_TRUNC | Libc.O_CLOEXEC, FileMode), "open", path);

    private BareVm Start(string initramfs, int vcpus, string console, string? snapshot) => BareVm.Start(folder =>
    {
        string disk = Path.Combine(_folder, "disk");
        if (snapshot is null)
        {
            File.WriteAllBytes(disk, new byte[1 << 20]);
        }

        string pvmKernel = Path.Combine(Installation.Libexec, "vmlinux-pvm");
        return new VmmConfig
        {
            Kernel = snapshot is null ? FileReference.FromPath(Installation.Kernel) : null,
            PvmKernel = snapshot is null && File.Exists(pvmKernel) ? FileReference.FromPath(pvmKernel) : null,
            Initrd = snapshot is null ? FileReference.FromPath(initramfs) : null,
            CommandLine = $"console=ttyS0 quiet loglevel=1 reboot=k panic=-1 scale={(Installation.IsLab ? 1 : 3)}",
            MemoryMiB = 64,
            Vcpus = vcpus,
            Tables = MachineTables.MpTable,
            Console = new ConsoleConfig { Output = FileReference.FromPath(console) },
            Block = [new BlockConfig { File = FileReference.FromPath(disk) }],
            Restore = snapshot is null ? null : new RestoreConfig { State = FileReference.FromPath(snapshot + ".state"), Memory = FileReference.FromPath(snapshot + ".memory") },
            Saves = true,
        };
    });

    private string MakeInitramfs()
    {
        string archive = Path.Combine(_folder, "initramfs.cpio");
        string root = Directory.CreateDirectory(Path.Combine(_folder, "root")).FullName;
        File.Copy(Installation.GuestProgram("snapshot-load"), Path.Combine(root, "init"));
        Shell.Run("sh", "-ec", $"cd {root}; find . | busybox cpio -o -H newc >{archive}").EnsureSuccess();
        return archive;
    }
}
