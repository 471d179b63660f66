using System.Globalization;
using MicroVm.LifecycleBench;
using MicroVm.Linux.Native;

// usage: MicroVm.LifecycleBench OUT BUNDLE [RUNS [LIBEXEC]]
// create, start and delete of the same bundle's container by microvm and by runc, in turn. LIBEXEC: the runtime's parts in place of
// OUT's own, for a VM that answers at once (MicroVm.InstantVm).
const double Goal = 30;
const int setChildSubreaper = 36;
string results = Path.Combine(args[0], "bench");
int runs = args.Length > 2 ? int.Parse(args[2], CultureInfo.InvariantCulture) : 15;
Directory.CreateDirectory(results);
_ = Libc.prctl(setChildSubreaper, 1, 0, 0, 0);
string scratch = Directory.CreateTempSubdirectory("microvm-bench-").FullName;
string? libexec = args.Length > 3 ? Path.GetFullPath(args[3]) : null;
Runtime microvm = new("microvm", Path.Combine(args[0], "bin", "microvm"), args[1], scratch, libexec);
Runtime? runc = File.Exists("/usr/sbin/runc") ? new Runtime("runc", "/usr/sbin/runc", args[1], scratch) : null;

// A first pair brings the files into the page cache.
microvm.Measure();
runc?.Measure();
List<(Life Ours, List<Step> Steps, Life? Runc)> pairs = [];
List<(double Ours, double? Runc)> execs = [];
for (int i = 0; i < runs; i++)
{
    Life ours = microvm.Measure();
    pairs.Add((ours, Profile.Of(ours), runc?.Measure()));
    execs.Add((microvm.MeasureExec(), runc?.MeasureExec()));
}

Directory.Delete(scratch, recursive: true);
double[] own = [.. pairs.Select(p => p.Steps.Where(s => !s.OfVm).Sum(s => s.Milliseconds))];
using (StreamWriter csv = new(Path.Combine(results, libexec is null ? "lifecycle.csv" : "lifecycle-instant.csv")))
{
    csv.WriteLine("run,microvm,of_it_the_vm,own,runc");
    for (int i = 0; i < runs; i++)
    {
        csv.WriteLine(FormattableString.Invariant($"{i},{pairs[i].Ours.Total:0.00},{pairs[i].Ours.Total - own[i]:0.00},{own[i]:0.00},{pairs[i].Runc?.Total:0.00}"));
    }
}

Console.WriteLine(FormattableString.Invariant($"{(libexec is null ? "create + start + delete of a container" : "the same, by a VM that answers at once")}, {runs} pairs, ms            best   median"));
Row("microvm, all of it", pairs.Select(p => p.Ours.Total));
Row("    of it the VM: exec of the VMM to container in the guest, its start", pairs.Select((p, i) => p.Ours.Total - own[i]));
Row(FormattableString.Invariant($"    of it our own (goal: {Goal:0})"), own);
Row("    CPU of our commands and of the process for the container", pairs.Select(p => p.Ours.Cpu));
Row("    CPU of the VMM, the guest's with it", pairs.Select(p => p.Ours.VmCpu));
if (runc is not null)
{
    Row("runc, all of it", pairs.Select(p => p.Runc!.Total));
    Row("    CPU", pairs.Select(p => p.Runc!.Cpu));
    Row("ratio, our own to runc", pairs.Select((p, i) => own[i] / p.Runc!.Total));
}

Row(libexec is null ? "microvm exec, the guest's part with it" : "microvm exec", execs.Select(e => e.Ours));
if (runc is not null)
{
    Row("runc exec", execs.Select(e => e.Runc!.Value));
    Row("ratio", execs.Select(e => e.Ours / e.Runc!.Value));
}

Console.WriteLine();
Console.WriteLine("step (up to)                                                            best   median");
for (int i = 0; i < pairs[0].Steps.Count; i++)
{
    Step step = pairs[0].Steps[i];
    Row($"{step.Command}: {step.Text}{(step.OfVm ? " [VM]" : "")}", pairs.Select(p => p.Steps[i].Milliseconds));
}

Row("not counted: the container's end, from start's to that of its process", pairs.Select(p => p.Ours.Ended));
return 0;

static void Row(string what, IEnumerable<double> values)
{
    double[] sorted = [.. values.Order()];
    Console.WriteLine(FormattableString.Invariant($"{what,-70}{sorted[0],7:0.00}{(sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2,9:0.00}"));
}
