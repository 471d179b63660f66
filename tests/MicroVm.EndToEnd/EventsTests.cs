using System.Diagnostics;
using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>`events` of a container: figures at an interval, out-of-memory kills, for as many as ask.</summary>
public sealed class EventsTests
{
    private const int Wanted = 3;

    [SkippableFact]
    public void EveryClientIsToldUntilTheContainerEnds()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("trap 'tail /dev/zero' USR1; echo ready; while :; do sleep 0.1; done");
        bundle.Linux["resources"]!["memory"] = new JsonObject { ["limit"] = 32 << 20 };
        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        c.Call("start").EnsureSuccess();
        c.WaitForOutput("ready");
        string[] names = ["one", "two"];
        Process[] clients = [.. names.Select(n => c.Begin(n, "events", "--interval", "200ms", c.Id))];
        DetachedContainer.Eventually(() => names.All(n => Lines(c, n, "stats").Count >= Wanted), "no figures");
        c.Raw("kill", c.Id, "USR1").EnsureSuccess();
        DetachedContainer.Eventually(() => names.All(n => Lines(c, n, "oom").Count >= 1), "no out-of-memory kill is told");
        Assert.Equal("running", c.Status);

        // Who comes later is not told of what was before.
        Process late = c.Begin("late", "events", "--interval=200ms", c.Id);
        DetachedContainer.Eventually(() => Lines(c, "late", "stats").Count >= Wanted, "no figures");
        Assert.Empty(Lines(c, "late", "oom"));

        c.Raw("kill", c.Id, "KILL").EnsureSuccess();
        Assert.Equal(137, DetachedContainer.Reap(c.Pid));

        // With cgroup version 1, runc's clients wait for the cgroup's end.
        c.Call("delete").EnsureSuccess();
        Assert.All((Process[])[.. clients, late], p => Assert.Equal(0, DetachedContainer.End(p)));
        Assert.All(names, n => Assert.All(Lines(c, n, "stats").Take(Wanted), l => Assert.True((long)l["data"]!["memory"]!["usage"]!["usage"]! > 0)));
    }

    /// <summary>What conmon and containerd look at when a container has ended.</summary>
    [SkippableFact]
    public void AnOutOfMemoryKillIsToldByTheCgroupOfTheHost()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("/bin/tail", "/dev/zero");
        bundle.Linux["resources"]!["memory"] = new JsonObject { ["limit"] = 16 << 20 };
        string cgroup = $"/microvm-e2e/{Guid.NewGuid():N}";
        bundle.Linux["cgroupsPath"] = cgroup;
        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        string events = DetachedContainer.CgroupFolders(cgroup)
            .SelectMany(f => (string[])[Path.Combine(f, "memory.oom_control"), Path.Combine(f, "memory.events")]).First(File.Exists);
        Assert.Contains("oom_kill 0\n", File.ReadAllText(events), StringComparison.Ordinal);
        string limit = File.ReadAllText(Limit(events));
        c.Call("start").EnsureSuccess();
        Assert.Equal(137, DetachedContainer.Reap(c.Pid));
        Assert.Contains("oom_kill 1\n", File.ReadAllText(events), StringComparison.Ordinal);
        Assert.Equal(limit, File.ReadAllText(Limit(events)));
        c.Call("delete").EnsureSuccess();
        Assert.Empty(DetachedContainer.CgroupFolders(cgroup));

        static string Limit(string events) => Path.Combine(Path.GetDirectoryName(events)!, events.EndsWith("events", StringComparison.Ordinal) ? "memory.max" : "memory.limit_in_bytes");
    }

    [SkippableFact]
    public void AskingForFiguresAgainAndAgainCostsNoMemory()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("echo ready; while :; do sleep 1000; done");
        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        c.Call("start").EnsureSuccess();
        c.WaitForOutput("ready");
        int[] processes = [c.Sandbox, c.Vmm];
        Process asks = c.Begin("figures", "events", "--interval", "2ms", c.Id);
        DetachedContainer.Eventually(() => Count(c["figures"]) > 50, "no figures");
        int before = processes.Sum(ProcessTree.AnonymousKiB);
        DetachedContainer.Eventually(() => Count(c["figures"]) > 850, "no figures");
        Assert.InRange(processes.Sum(ProcessTree.AnonymousKiB) - before, int.MinValue, 24 << 10);
        c.Raw("kill", c.Id, "KILL").EnsureSuccess();
        DetachedContainer.Reap(c.Pid);
        c.Call("delete").EnsureSuccess();
        DetachedContainer.End(asks);
    }

    private static int Count(string file) => File.Exists(file) ? File.ReadLines(file).Count() : 0;

    private static List<JsonNode> Lines(DetachedContainer c, string name, string type) => File.Exists(c[name])
        ? [.. File.ReadAllText(c[name]).Split('\n')[..^1].Select(l => JsonNode.Parse(l)!).Where(l => (string)l["type"]! == type)]
        : [];
}
