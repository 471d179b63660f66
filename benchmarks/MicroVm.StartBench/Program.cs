using System.Diagnostics;
using System.Globalization;
using MicroVm.StartBench;
using MicroVm.Tests.Shared.Host;

// usage: MicroVm.StartBench OUT FIRST-KVM-RUN [RUNS]
// Starts the same VM under microvm-vmm and under QEMU's microvm machine, in turn, and compares.
string libexec = Path.Combine(args[0], "libexec", "microvm");
string results = Path.Combine(args[0], "bench");
int runs = args.Length > 2 ? int.Parse(args[2], CultureInfo.InvariantCulture) : 15;
Directory.CreateDirectory(results);
string scratch = Directory.CreateTempSubdirectory("microvm-bench-").FullName;
Peer ours = Peer.MicroVmm(Path.Combine(libexec, "microvm-vmm"), scratch);
Peer qemu = Peer.Qemu;
Measure measure = new(args[1], scratch);

// Neither monitor adds to the first. Where KVM emulates an ordinary kernel, it is the kernel made for such hosts: an ordinary one
// needs instructions completed for it, which QEMU does not do. The second is what a container's VM has.
bool emulated = !HostKvm.IsOrdinary;
const string Common = "console=ttyS0 loglevel=8 panic=-1 microvm.log=debug rootfstype=erofs ro init=/init";
VmShape shape = new(
    Path.Combine(libexec, emulated ? "vmlinux-pvm" : "vmlinux"),
    Path.Combine(libexec, "agent.img"),
    $"{Common} reboot=t root=/dev/vda{(emulated ? " mitigations=off" : "")}",
    128);
VmShape shipped = shape with { AsShipped = true, CommandLine = $"{Common} reboot=k root=/dev/pmem0 rootflags=dax rootwait" };
const string Ready = "microvm-agent: ready";
TimeSpan deadline = TimeSpan.FromSeconds(180);

using StreamWriter csv = new(Path.Combine(results, "start.csv"));
csv.WriteLine("measure,unit,run,microvm_vmm,qemu");
if (emulated)
{
    Console.WriteLine("this host's KVM would emulate an ordinary guest kernel (PVM): vmlinux-pvm for both");
}

Pairs("exec to first KVM_RUN", "ms", runs, p => measure.ToFirstRun(p, shape), goal: 1.0 / 3);
Pairs("first KVM_RUN to agent ready", "s", runs, p => measure.ToConsoleText(p, shape, Ready, deadline), goal: 1);
double asShipped = measure.ToConsoleText(ours, shipped, Ready, deadline);
Console.WriteLine(FormattableString.Invariant($"first KVM_RUN to agent ready as shipped (image on virtio-pmem, XSAVE): {asShipped:0.00} s"));
csv.WriteLine(FormattableString.Invariant($"agent ready as shipped,s,0,{asShipped:0.000},"));

(long total, long dirty, IReadOnlyList<(string Name, long KiB)> parts) = measure.PrivateMemory(ours, shipped, Ready, deadline);
(long qemuTotal, long qemuDirty, _) = measure.PrivateMemory(qemu, shape, Ready, deadline);
Console.WriteLine(FormattableString.Invariant($"idle private memory, guest RAM excluded: microvm-vmm {total} KiB, qemu {qemuTotal} KiB, ratio {(double)total / qemuTotal:0.000} (goal: 5120 KiB)"));
Console.WriteLine(FormattableString.Invariant($"    written to, and so what each further VM costs: microvm-vmm {dirty} KiB, qemu {qemuDirty} KiB"));
csv.WriteLine(FormattableString.Invariant($"private memory written to,KiB,0,{dirty},{qemuDirty}"));
csv.WriteLine(FormattableString.Invariant($"private memory,KiB,0,{total},{qemuTotal}"));
foreach ((string name, long kib) in parts.Take(12))
{
    Console.WriteLine(FormattableString.Invariant($"    {kib,6} KiB  {name}"));
}

Directory.Delete(scratch, recursive: true);
return 0;

void Pairs(string what, string unit, int count, Func<Peer, double> one, double goal)
{
    // A first pair brings the files into the page cache.
    one(ours);
    one(qemu);
    List<(double A, double B)> pairs = [];
    for (int i = 0; i < count; i++)
    {
        pairs.Add((one(ours), one(qemu)));
        csv.WriteLine(FormattableString.Invariant($"{what},{unit},{i},{pairs[i].A:0.000},{pairs[i].B:0.000}"));
    }

    Console.WriteLine(FormattableString.Invariant(
        $"{what}, {count} pairs: microvm-vmm {Median(pairs.Select(p => p.A)):0.00} {unit}, qemu {Median(pairs.Select(p => p.B)):0.00} {unit}, ratio {Median(pairs.Select(p => p.A / p.B)):0.000} (goal: at most {goal:0.00})"));
}

static double Median(IEnumerable<double> values)
{
    double[] sorted = [.. values.Order()];
    return sorted.Length % 2 == 1 ? sorted[sorted.Length / 2] : (sorted[(sorted.Length / 2) - 1] + sorted[sorted.Length / 2]) / 2;
}
