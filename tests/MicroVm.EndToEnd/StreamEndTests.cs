using System.Globalization;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>What the caller's files get of a process's output: its end as soon as the process closes it, and one order in one file.</summary>
public sealed class StreamEndTests
{
    private const string Silent = "exec >&- 2>&-; exec sleep 1000";
    private const string Alternating = "i=0; while [ $i -lt 100 ]; do echo o$i; echo e$i >&2; i=$((i+1)); done";

    private static string Ordered => string.Concat(Enumerable.Range(0, 100).Select(i => string.Create(CultureInfo.InvariantCulture, $"o{i}\ne{i}\n")));

    [SkippableFact]
    public void ClosedOutputEndsTheCallersPipeWhileTheProcessRuns()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create($"echo last words; {Silent}");
        bundle.Save();
        using DetachedContainer c = new(bundle);
        Assert.Equal("last words\n", ReadToEnd(c, $"run -d --bundle {bundle.Path} --pid-file {c["pid"]} {c.Id}"));
        Assert.Equal("running", c.Status);
        Assert.Equal("more\n", ReadToEnd(c, $"exec -d --pid-file {c["exec.pid"]} {c.Id} sh -c 'echo more; {Silent}'"));
        c.Raw("kill", c.Id, "KILL").EnsureSuccess();
        DetachedContainer.Reap(ExecPid(c));
        DetachedContainer.Reap(c.Pid);
    }

    [SkippableFact]
    public void ClosedOutputLeavesStandardErrorOpen()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("exec >&-; until [ -e /go ]; do sleep 0.1; done; echo late >&2");
        using DetachedContainer c = new(bundle);
        bundle.Save();
        string line = $"{Installation.Runtime} --root {c.Root} run -d --bundle {bundle.Path} --pid-file {c["pid"]} {c.Id} </dev/null 2>{c["err"]} | " +
            $"timeout {Installation.RunDeadline.TotalSeconds} cat";
        Assert.Equal("", Shell.Run("sh", "-c", line).EnsureSuccess().StandardOutput);
        Assert.Equal("running", c.Status);
        c.Raw("exec", c.Id, "touch", "/go").EnsureSuccess();
        Assert.Equal(0, DetachedContainer.Reap(c.Pid));
        Assert.Equal("late\n", File.ReadAllText(c["err"]));
    }

    [SkippableFact]
    public void OneFileForOutputAndErrorKeepsTheirOrder()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create($"{Alternating}; sleep 1000");
        bundle.Save();
        using DetachedContainer c = new(bundle);
        string pipe = $"{Installation.Runtime} --root {c.Root} ";
        Shell.Run("sh", "-c", $"{pipe} run -d --bundle {bundle.Path} --pid-file {c["pid"]} {c.Id} </dev/null >{c["out"]} 2>&1").EnsureSuccess();
        File.WriteAllText(c["err"], "");
        c.WaitForOutput("e99\n");
        Assert.Equal(Ordered, c.Output);
        Shell.Run("sh", "-c", $"{pipe} exec -d --pid-file {c["exec.pid"]} {c.Id} sh -c '{Alternating}' </dev/null >>{c["exec"]} 2>>{c["exec"]}").EnsureSuccess();
        DetachedContainer.Eventually(() => File.ReadAllText(c["exec"]).EndsWith("e99\n", StringComparison.Ordinal), "the output of exec");
        Assert.Equal(Ordered, File.ReadAllText(c["exec"]));
        Assert.Equal(0, DetachedContainer.Reap(ExecPid(c)));
        Assert.Equal(Ordered, ReadToEnd(c, $"exec -d --pid-file {c["exec.pid"]} {c.Id} sh -c '{Alternating}'"));
        Assert.Equal(0, DetachedContainer.Reap(ExecPid(c)));
    }

    private static int ExecPid(DetachedContainer c) => int.Parse(File.ReadAllText(c["exec.pid"]), CultureInfo.InvariantCulture);

    /// <summary>What a command and the process that it leaves behind write to a pipe, up to its end.</summary>
    private static string ReadToEnd(DetachedContainer c, string arguments)
    {
        string line = $"{Installation.Runtime} --root {c.Root} {arguments} 2>&1 </dev/null | timeout {Installation.RunDeadline.TotalSeconds} cat";
        return Shell.Run("sh", "-c", line).EnsureSuccess().StandardOutput;
    }
}
