using System.Diagnostics;
using System.Globalization;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Netlink;
using MicroVm.VmmControl;
using MicroVm.VmmControl.Writing;

namespace MicroVm.NetBench;

/// <summary>A way for packets from this process's network namespace to the load's other end.</summary>
internal abstract class Way(string name, string netload)
{
    protected const string Here = "10.77.0.1", There = "10.77.0.2", Port = "5201";

    /// <summary>Names the CPU seconds a second that a figure was measured at.</summary>
    internal const string CpuSuffix = ", CPU";

    internal string Name => name;

    protected string Netload => netload;

    /// <summary>Builds it, runs every measurement once, and takes it down; figures by name.</summary>
    internal Dictionary<string, double> Measure(double seconds)
    {
        string[] drive = ["drive", Here, Port, seconds.ToString(CultureInfo.InvariantCulture)];
        using Process other = Open();
        try
        {
            using Process driver = Process.Start(new ProcessStartInfo(netload, drive) { RedirectStandardOutput = true })!;
            Dictionary<string, double> figures = [];
            double cpu = 0;
            while (driver.StandardOutput.ReadLine() is { } line)
            {
                // A line ends a measurement: what the other end's process has used since the last one is its cost, the guest's with it.
                double now = Cpu(other.Id);
                string[] words = line.Split(' ');
                figures[words[0]] = double.Parse(words[1], CultureInfo.InvariantCulture);
                figures[words[0] + CpuSuffix] = (now - cpu) / seconds;
                cpu = now;
            }

            driver.WaitForExit();
            return driver.ExitCode == 0 ? figures : throw new InvalidOperationException($"{name}: the load failed: {Told()}");
        }
        finally
        {
            other.Kill();
            other.WaitForExit();
            Close();
        }
    }

    /// <summary>Makes the way, with an interface that has the address <see cref="Here"/>, and starts the other end.</summary>
    protected abstract Process Open();

    protected abstract void Close();

    protected virtual string Told() => "";

    /// <summary>Seconds of CPU that a process has used (clock_getcpuclockid(3)).</summary>
    private static unsafe double Cpu(int pid)
    {
        const int clockGettime = 228, scheduler = 2;
        long* time = stackalloc long[2];
        Check.Result(Libc.syscall(clockGettime, (~pid << 3) | scheduler, (nint)time, 0, 0, 0, 0), "clock_gettime");
        return time[0] + (time[1] / 1e9);
    }

    protected static void Ip(params string[] arguments)
    {
        using Process ip = Process.Start("ip", arguments);
        ip.WaitForExit();
        if (ip.ExitCode != 0)
        {
            throw new InvalidOperationException($"ip {string.Join(' ', arguments)} failed");
        }
    }
}

/// <summary>A veth pair to a second namespace: no VM.</summary>
internal sealed class Veth(string netload) : Way("veth", netload)
{
    protected override Process Open()
    {
        const string script = "echo; read go; ip address add $2/24 dev bench1; ip link set bench1 up; exec $1 serve $3 $4";
        ProcessStartInfo start = new("unshare", ["--net", "--", "/bin/sh", "-c", script, "sh", Netload, There, Here, Port])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
        };
        Process other = Process.Start(start)!;

        // Once it has said something it is in its namespace.
        _ = other.StandardOutput.ReadLine();
        Ip("link", "add", "bench0", "type", "veth", "peer", "name", "bench1", "netns", other.Id.ToString(CultureInfo.InvariantCulture));
        Ip("address", "add", $"{Here}/24", "dev", "bench0");
        Ip("link", "set", "bench0", "up");
        other.StandardInput.WriteLine();
        return other;
    }

    // Gone with the other namespace, but that takes its time.
    protected override void Close() => Process.Start("/bin/sh", ["-c", "ip link delete bench0 2>/dev/null"]).WaitForExit();
}

/// <summary>A VM whose first process is the load's other end, with virtio-net on a tap.</summary>
internal sealed class Vm(string name, string netload, string scratch, Func<VmFiles, string[]> command) : Way(name, netload)
{
    internal const string Mac = "02:00:5e:10:00:01";
    internal const int Mtu = 1500;
    private SafeFd? _tap;

    private string Console => Path.Combine(scratch, "console");

    /// <summary>microvm-vmm.</summary>
    internal static Vm Ours(string binary, string netload, string scratch, VmKernel kernel) => new("microvm-vmm", netload, scratch, files =>
    {
        string config = Path.Combine(scratch, "vmm.json");
        VmmConfig vm = new()
        {
            Kernel = FileReference.FromPath(kernel.Path),
            PvmKernel = FileReference.FromPath(kernel.Path),
            Block = [new BlockConfig { File = FileReference.FromPath(kernel.Image), ReadOnly = true }],
            CommandLine = files.CommandLine(kernel),
            MemoryMiB = kernel.MemoryMiB,
            Tables = MachineTables.MpTable,
            Serial = FileReference.FromPath(files.Console),
            Net = [new NetConfig { Interface = new NetAttachment { Mac = Mac, Mtu = Mtu, Taps = [FileReference.FromFd(files.Tap)] } }],
        };
        File.WriteAllBytes(config, ConfigWriter.Write(vm));
        return [binary, "--config", config];
    });

    /// <summary>QEMU's smallest machine, with its own back end for the tap: the host has no vhost.</summary>
    internal static Vm Qemu(string netload, string scratch, VmKernel kernel) => new("qemu-microvm", netload, scratch, files =>
    [
        "qemu-system-x86_64", "-M", "microvm,accel=kvm,isa-serial=on,pic=off,pit=off,rtc=off,acpi=off",
        "-cpu", "host,-arch-capabilities", "-m", $"{kernel.MemoryMiB}", "-nodefaults", "-no-user-config", "-display", "none",
        "-serial", $"file:{files.Console}", "-no-reboot", "-kernel", kernel.Path, "-append", files.CommandLine(kernel),
        "-drive", $"id=root,file={kernel.Image},format=raw,if=none,readonly=on", "-device", "virtio-blk-device,drive=root",
        "-netdev", $"tap,id=net,fd={files.Tap},vhost=off", "-device", $"virtio-net-device,netdev=net,mac={Mac},host_mtu={Mtu}",
    ]);

    protected override Process Open()
    {
        (string tapName, SafeFd[] queues) = TapInterface.Create("bench%d", 1);
        _tap = queues[0];
        Ip("address", "add", $"{Here}/24", "dev", tapName);
        Ip("link", "set", tapName, "up");

        // The monitor inherits it by its number.
        _ = Libc.fcntl(_tap.Value, Libc.F_SETFD, 0);
        File.WriteAllText(Console, "");
        string[] line = command(new VmFiles(_tap.Value, Console, $"netload={There},{Here},{Port}"));
        Process vm = Process.Start(new ProcessStartInfo(line[0], line[1..]) { RedirectStandardInput = true })!;
        _ = Libc.fcntl(_tap.Value, Libc.F_SETFD, Libc.FD_CLOEXEC);
        return vm;
    }

    protected override void Close() => _tap?.Dispose();

    protected override string Told() => File.ReadAllText(Console);
}

/// <summary>The guest: the same for every monitor.</summary>
/// <param name="Path">Its kernel.</param>
/// <param name="Image">Its root, with the load as /init.</param>
/// <param name="MemoryMiB">Its memory.</param>
/// <param name="Arguments">For the kernel.</param>
internal sealed record VmKernel(string Path, string Image, int MemoryMiB, string Arguments);

/// <summary>What a monitor is started with.</summary>
/// <param name="Tap">Descriptor of the tap.</param>
/// <param name="Console">File for the serial port.</param>
/// <param name="Load">Arguments of the load in the guest.</param>
internal sealed record VmFiles(int Tap, string Console, string Load)
{
    internal string CommandLine(VmKernel kernel) => $"{kernel.Arguments} {Load}";
}
