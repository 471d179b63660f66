using System.Globalization;
using MicroVm.NetBench;
using MicroVm.Tests.Shared.Host;

// usage: MicroVm.NetBench OUT NETLOAD IMAGE [ROUNDS [SECONDS]]
// The same load over virtio-net of microvm-vmm, over QEMU's, and over a veth pair without a VM, in turn; to be run in a network
// namespace of its own. IMAGE is a root file system whose /init is NETLOAD.
string libexec = Path.Combine(args[0], "libexec", "microvm"), results = Path.Combine(args[0], "bench"), netload = args[1];
int rounds = args.Length > 3 ? int.Parse(args[3], CultureInfo.InvariantCulture) : 5;
double seconds = args.Length > 4 ? double.Parse(args[4], CultureInfo.InvariantCulture) : 2;
Directory.CreateDirectory(results);
string scratch = Directory.CreateTempSubdirectory("microvm-bench-").FullName;

// As for the starts: where KVM emulates an ordinary kernel, both monitors get the one made for such hosts.
bool emulated = !HostKvm.IsOrdinary;
VmKernel kernel = new(
    Path.Combine(libexec, emulated ? "vmlinux-pvm" : "vmlinux"), args[2], 256,
    $"console=ttyS0 quiet panic=-1 reboot=t rootfstype=erofs ro root=/dev/vda init=/init{(emulated ? " mitigations=off" : "")}");
Way[] ways = [Vm.Ours(Path.Combine(libexec, "microvm-vmm"), netload, scratch, kernel), Vm.Qemu(netload, scratch, kernel), new Veth(netload)];
(string Figure, string Title, bool MoreIsBetter)[] figures =
[
    ("tcp-from-guest-gbit", "TCP from the guest, Gbit/s", true), ("tcp-to-guest-gbit", "TCP to the guest, Gbit/s", true),
    ("udp-from-guest-kpps", "UDP of 18 bytes from the guest, 1000/s", true), ("udp-to-guest-kpps", "UDP of 18 bytes to the guest, 1000/s", true),
    ("round-trip-us", "UDP round trip, median, us", false), ("round-trip-least-us", "UDP round trip, least, us", false),
];

List<Dictionary<string, double>[]> all = [];
for (int round = 0; round < rounds; round++)
{
    all.Add([.. ways.Select(w => w.Measure(seconds))]);
}

Directory.Delete(scratch, recursive: true);
using StreamWriter csv = new(Path.Combine(results, "net.csv"));
csv.WriteLine("measure,round,microvm_vmm,qemu,veth");
Console.WriteLine(FormattableString.Invariant($"{rounds} rounds of {seconds} s each; medians; ratios are medians of the rounds' ratios, more than 1: microvm-vmm is better"));
Console.WriteLine("by CPU: the same ratio of what came through for each second of CPU that the monitor used, guest included");
Console.WriteLine($"{"",-42}{"microvm",10}{"qemu",10}{"veth",10}{"to qemu",10}{"by CPU",10}{"to veth",10}");
foreach ((string figure, string title, bool moreIsBetter) in figures)
{
    for (int round = 0; round < rounds; round++)
    {
        csv.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{figure},{round},{string.Join(',', all[round].Select(f => f[figure].ToString("0.000", CultureInfo.InvariantCulture)))}"));
    }

    double Ratio(int other) => Median(all.Select(r => moreIsBetter ? r[0][figure] / r[other][figure] : r[other][figure] / r[0][figure]));
    double Spent(Dictionary<string, double> of) => of[figure + Way.CpuSuffix];
    double ByCpu() => Median(all.Select(r => (moreIsBetter ? r[0][figure] / r[1][figure] : r[1][figure] / r[0][figure]) * Spent(r[1]) / Spent(r[0])));

    // The least of the round trips is a second figure of the same measurement.
    string byCpu = figure == "round-trip-least-us" ? "" : ByCpu().ToString("0.00", CultureInfo.InvariantCulture);
    double Of(int way) => Median(all.Select(r => r[way][figure]));
    Console.WriteLine(FormattableString.Invariant($"{title,-42}{Of(0),10:0.00}{Of(1),10:0.00}{Of(2),10:0.00}{Ratio(1),10:0.00}{byCpu,10}{Ratio(2),10:0.000}"));
}

return 0;

static double Median(IEnumerable<double> values)
{
    double[] sorted = [.. values.Order()];
    return (sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2;
}
