using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>`run --trace`: command, sandbox process, VMM and guest on one clock.</summary>
public sealed class TraceTests : IDisposable
{
    // The guest's clock is known to half of a short call; on a busy machine that is some milliseconds.
    private const long ClockMicroseconds = 20_000;
    private readonly string _folder = Directory.CreateTempSubdirectory("microvm-trace-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [SkippableFact]
    public void ABootIsTracedFromTheCommandToTheContainersProcess()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("exit 7");
        List<Step> steps = Trace(bundle, 7, "--no-template");
        Check(steps);
        Step run = One(steps, "microvm-vmm", "the guest runs");
        Step agent = One(steps, "guest", "the agent prepares the guest");
        Assert.Contains(steps, s => s.Process.StartsWith("guest", StringComparison.Ordinal) && s.IsMark && s.Thread < 0);
        Assert.True(agent.Begin >= run.Begin && agent.End <= One(steps, "microvm sandbox", "await the agent").End + ClockMicroseconds);
        One(steps, "microvm-vmm", "load the kernel");

        string picture = Path.Combine(_folder, "picture.svg");
        Shell.Run(Installation.Runtime, "trace", "render", "-o", picture, Path.Combine(_folder, "trace.json")).EnsureSuccess();
        string svg = File.ReadAllText(picture);
        Assert.All((string[])["the guest runs", "mount the root", "set up the container"], name => Assert.Contains($"<title>{name}: ", svg, StringComparison.Ordinal));
        Assert.Equal(svg, Shell.Run(Installation.Runtime, "trace", "render", Path.Combine(_folder, "trace.json")).EnsureSuccess().StandardOutput);
    }

    [SkippableFact]
    public void AStartFromATemplateHasNoStepsFromBeforeItWasSaved()
    {
        Installation.RequireKvm();
        string templates = Path.Combine(_folder, "templates");
        Shell.Run("env", $"MICROVM_TEMPLATES={templates}", Installation.Runtime, "template", "create", "--vm-memory", "200").EnsureSuccess();
        using Bundle bundle = Bundle.Create("exit 0");
        List<Step> steps = Trace(bundle, 0, "--template", "--vm-memory", "200");
        Check(steps);
        One(steps, "microvm-vmm", "restore the state");
        One(steps, "guest", "reseed the random generator");
        Assert.DoesNotContain(steps, s => s.Name == "the agent prepares the guest" || s.Name.StartsWith("Linux version", StringComparison.Ordinal));
    }

    [SkippableFact]
    public void ADetachedContainersTraceEndsWithItsStart()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        bundle.Save();
        string id = $"e2e-{Guid.NewGuid():N}"[..20], root = Path.Combine(_folder, "root"), file = Path.Combine(_folder, "trace.json");
        try
        {
            Shell.Run("sh", "-c", $"exec {Installation.Runtime} --root {root} run -d --trace {file} --bundle {bundle.Path} {id} </dev/null >/dev/null 2>&1").EnsureSuccess();
            List<Step> steps = Read(file);
            One(steps, "guest", "exec the init");
            Assert.DoesNotContain(steps, s => s.Name == "the init runs");
        }
        finally
        {
            Shell.Run(Installation.Runtime, "--root", root, "delete", "--force", id);
        }
    }

    [SkippableFact]
    public void ATraceThatIsNoneIsRefused()
    {
        Skip.IfNot(Installation.IsMicroVm, "runc writes no traces");
        string file = Path.Combine(_folder, "other.json");
        File.WriteAllText(file, "{\"traceEvents\":[{\"ts\":\"soon\"}]}");
        CommandResult other = Shell.Run(Installation.Runtime, "trace", "render", file);
        Assert.Equal(1, other.ExitCode);
        Assert.Contains($"{file}: is no trace of microvm run --trace", other.StandardError, StringComparison.Ordinal);
        File.WriteAllText(file, "{\"traceEvents\":[]}");
        Assert.Contains("the trace has no steps", Shell.Run(Installation.Runtime, "trace", "render", file).StandardError, StringComparison.Ordinal);
    }

    /// <summary>Each step is a part of what encloses it, on its own clock, and the guest's lie where the host says.</summary>
    private static void Check(List<Step> steps)
    {
        Assert.All(steps, s => Assert.True(s.Begin >= 0 && s.End >= s.Begin, s.ToString()));
        Step command = One(steps, "microvm ", "the command");
        Assert.All(steps, s => Assert.True(s.End <= command.End, s.ToString()));

        // Steps of one lane lie one after the other or one inside the other.
        foreach (IGrouping<(string, int), Step> lane in steps.Where(s => !s.IsMark).GroupBy(s => (s.Process, s.Thread)))
        {
            Step[] inOrder = [.. lane];
            for (int i = 0; i < inOrder.Length; i++)
            {
                Assert.All(inOrder[(i + 1)..], later => Assert.True(
                    later.Begin >= inOrder[i].End || (later.Begin >= inOrder[i].Begin && later.End <= inOrder[i].End), $"{later} and {inOrder[i]} overlap"));
            }
        }

        Step sandbox = One(steps, "microvm sandbox", "create the container"), guest = One(steps, "microvm-vmm", "the guest runs");
        Step asked = One(steps, "microvm sandbox", "create the container in the guest"), done = One(steps, "guest", "set up the container");
        Assert.True(sandbox.Begin <= asked.Begin && asked.End <= sandbox.End, $"{asked} is no part of {sandbox}");
        Assert.InRange(done.Begin, asked.Begin - ClockMicroseconds, asked.End + ClockMicroseconds);
        Assert.InRange(done.End, asked.Begin - ClockMicroseconds, asked.End + ClockMicroseconds);
        Assert.True(done.Begin >= guest.Begin, $"{done} before {guest}");
        Step exec = One(steps, "guest", "exec the init"), init = One(steps, "guest", "the init runs");
        Assert.True(done.End <= exec.Begin && exec.End <= init.Begin, $"{done}, {exec}, {init}");
    }

    private List<Step> Trace(Bundle bundle, int status, params string[] flags)
    {
        bundle.Save();
        string file = Path.Combine(_folder, "trace.json");
        CommandResult run = Shell.Run("env",
            [$"MICROVM_TEMPLATES={Path.Combine(_folder, "templates")}", Installation.Runtime, "--root", Path.Combine(_folder, "root"), .. flags,
                "run", "--trace", file, "--bundle", bundle.Path, $"e2e-{Guid.NewGuid():N}"[..20]]);
        Assert.True(run.ExitCode == status, run.ToString());
        return Read(file);
    }

    private static List<Step> Read(string file)
    {
        JsonArray events = JsonNode.Parse(File.ReadAllText(file))!["traceEvents"]!.AsArray();
        Dictionary<int, string> names = events.Where(e => (string)e!["ph"]! == "M").ToDictionary(e => (int)e!["pid"]!, e => (string)e!["args"]!["name"]!);
        return
        [
            .. events.Where(e => (string)e!["ph"]! != "M").Select(e => new Step(
                names[(int)e!["pid"]!], (int)e["tid"]!, (string)e["name"]!, (long)e["ts"]!, (long)e["ts"]! + ((long?)e["dur"] ?? 0), (string)e["ph"]! == "i")),
        ];
    }

    private static Step One(List<Step> steps, string process, string name) =>
        Assert.Single(steps, s => s.Process.StartsWith(process, StringComparison.Ordinal) && s.Name == name);

    private sealed record Step(string Process, int Thread, string Name, long Begin, long End, bool IsMark);
}
