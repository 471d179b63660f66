using System.Diagnostics;
using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>Several callers at once on one id: each gets a clear answer, one container is made, and nothing is left.</summary>
public sealed class RaceTests
{
    [SkippableFact]
    public void OneOfManyCreatesTheContainer()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle);
        bundle.Save();
        string[] names = ["a", "b", "c", "d"];
        Process[] creates = [.. names.Select(n => c.Begin(n, "create", "--bundle", bundle.Path, "--pid-file", c[n + ".pid"], c.Id))];
        int[] statuses = [.. creates.Select(DetachedContainer.End)];
        string won = Assert.Single(names, n => statuses[Array.IndexOf(names, n)] == 0);
        foreach (string lost in names.Where(n => n != won))
        {
            Assert.Contains("container with given ID already exists", File.ReadAllText(c[lost + ".err"]), StringComparison.Ordinal);
            Assert.False(File.Exists(c[lost + ".pid"]));
        }

        Assert.Equal(File.ReadAllText(c[won + ".pid"]), JsonNode.Parse(c.Call("state").StandardOutput)!["pid"]!.ToString());
        c.Call("start").EnsureSuccess();
        Assert.Equal("running", c.Status);
        c.Call("delete", "--force").EnsureSuccess();
        Assert.Empty(Directory.EnumerateFileSystemEntries(c.Root));
    }

    [SkippableFact]
    public void OneOfManyStartsAndOneDeletes()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle);
        bundle.Config["hooks"] = new JsonObject
        {
            ["poststop"] = new JsonArray(new JsonObject { ["path"] = "/bin/sh", ["args"] = new JsonArray("sh", "-c", $"echo once >>{c["poststop"]}") }),
        };
        Assert.Equal(0, c.Create().ExitCode);
        (int Status, string Error)[] starts = Together(c, 3, "start", c.Id);
        Assert.Single(starts, s => s.Status == 0);
        Assert.All(starts.Where(s => s.Status != 0), s => Assert.Contains("cannot start an already running container", s.Error, StringComparison.Ordinal));
        c.Raw("kill", c.Id, "KILL").EnsureSuccess();
        Assert.Equal(137, DetachedContainer.Reap(c.Pid));
        (int Status, string Error)[] deletes = Together(c, 4, "delete", c.Id);
        Assert.Single(deletes, d => d.Status == 0);
        Assert.All(deletes.Where(d => d.Status != 0), d => Assert.Contains("container does not exist", d.Error, StringComparison.Ordinal));
        Assert.Equal("once\n", File.ReadAllText(c["poststop"]));
        Assert.Empty(Directory.EnumerateFileSystemEntries(c.Root));
    }

    [SkippableFact]
    public void StartAndDeleteAtOnceLeaveNothing()
    {
        Installation.RequireKvm();
        foreach (bool startFirst in (bool[])[true, false])
        {
            using Bundle bundle = Bundle.Create("sleep 1000");
            string cgroup = $"/microvm-e2e/{Guid.NewGuid():N}";
            bundle.Linux["cgroupsPath"] = cgroup;
            using DetachedContainer c = new(bundle);
            Assert.Equal(0, c.Create().ExitCode);
            Process one = startFirst ? c.Begin("start", "start", c.Id) : c.Begin("delete", "delete", "--force", c.Id);
            Process other = startFirst ? c.Begin("delete", "delete", "--force", c.Id) : c.Begin("start", "start", c.Id);
            DetachedContainer.End(one);
            DetachedContainer.End(other);
            Assert.Equal(0, (startFirst ? other : one).ExitCode);
            string error = File.ReadAllText(c["start.err"]);
            Assert.True(
                (startFirst ? one : other).ExitCode == 0 || error.Contains("container not running", StringComparison.Ordinal)
                || error.Contains("has stopped", StringComparison.Ordinal) || error.Contains("does not exist", StringComparison.Ordinal), error);
            Assert.Contains("does not exist", c.Call("state").StandardError, StringComparison.Ordinal);
            Assert.Empty(Directory.EnumerateFileSystemEntries(c.Root));
            Assert.Empty(DetachedContainer.CgroupFolders(cgroup));

            // The id is free.
            Assert.Equal(0, c.Create().ExitCode);
        }
    }

    private static (int Status, string Error)[] Together(DetachedContainer c, int count, params string[] arguments)
    {
        Process[] all = [.. Enumerable.Range(0, count).Select(i => c.Begin($"{arguments[0]}{i}", arguments))];
        return [.. all.Select((p, i) => (DetachedContainer.End(p), File.ReadAllText(c[$"{arguments[0]}{i}.err"])))];
    }
}
