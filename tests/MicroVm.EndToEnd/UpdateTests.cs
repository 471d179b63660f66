using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>`update`: a document from standard input, and each flag.</summary>
public sealed class UpdateTests
{
    private static readonly (string Flags, string File, string Content)[] FlagTable =
    [
        ("--memory 100m", "memory.max", "104857600"),
        ("--memory-reservation 32M", "memory.low", "33554432"),
        ("--memory -1 --memory-swap -1", "memory.max", "max"),
        ("--cpu-period 50000 --cpu-quota 25000", "cpu.max", "25000 50000"),
        ("--cpu-burst 1000", "cpu.max.burst", "1000"),
        ("--cpu-share 2048", "cpu.weight", "174"),
        ("--cpu-idle 1", "cpu.idle", "1"),
        ("--cpu-idle 0", "cpu.idle", "0"),
        ("--pids-limit 77", "pids.max", "77"),
        ("--pids-limit -1", "pids.max", "max"),
        ("--blkio-weight 200", "pids.max", "max"),
        ("--cpuset-cpus 0 --cpuset-mems 0", "pids.max", "max"),
        ("--kernel-memory 1m --kernel-memory-tcp 1m --cpu-rt-period 1000 --cpu-rt-runtime 500", "pids.max", "max"),
    ];

    [SkippableFact]
    public void ADocumentMayComeFromStandardInput()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        c.Call("start").EnsureSuccess();
        foreach ((string flag, int limit) in new[] { ("-r -", 41), ("--resources=-", 42), ("--resources -", 43) })
        {
            Shell.RunWith($"{{\"pids\":{{\"limit\":{limit}}}}}", Installation.Runtime, ["--root", c.Root, "update", .. flag.Split(' '), c.Id]).EnsureSuccess();
            Assert.Contains($"\"limit\":{limit}}}", c.Call("events", "--stats").EnsureSuccess().StandardOutput, StringComparison.Ordinal);
        }

        foreach (string nonsense in (string[])["", "{bad", """{"pids":{"limit":"x"}}"""])
        {
            CommandResult refused = Shell.RunWith(nonsense, Installation.Runtime, "--root", c.Root, "update", "--resources=-", c.Id);
            Assert.Equal((1, ""), (refused.ExitCode, refused.StandardOutput));
            Assert.Single(refused.StandardError.Split('\n', StringSplitOptions.RemoveEmptyEntries));
        }

        Assert.Contains("\"limit\":43}", c.Call("events", "--stats").EnsureSuccess().StandardOutput, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void AMemoryLimitBelowWhatIsInUseIsRefusedWhereTheHostHasCgroupsOfVersion1()
    {
        Installation.RequireRuntime();
        Skip.If(File.Exists("/sys/fs/cgroup/cgroup.controllers"), "cgroups of this host are of version 2, where such a limit ends processes");
        using Bundle bundle = Bundle.Create("dd if=/dev/zero of=/dev/shm/held bs=1M count=8 2>/dev/null; echo ready; sleep 1000");
        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        c.Call("start").EnsureSuccess();
        c.WaitForOutput("ready");
        foreach (string limit in (string[])["1", "4M"])
        {
            CommandResult refused = c.Call("update", "--memory", limit);
            Assert.Equal(1, refused.ExitCode);
            Assert.Matches($"unable to set memory limit to {(limit == "1" ? 1 : 4 << 20)} \\(current usage: [0-9]+, peak usage: [0-9]+\\)", refused.StandardError);
            Assert.Equal("running", c.Status);
        }

        c.Call("update", "--memory", "48M").EnsureSuccess();
    }

    [SkippableFact]
    public void UpdatesAtOnceAreAllKept()
    {
        Installation.RequireRuntime();
        using Bundle bundle = Bundle.Create("sleep 1000");
        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        c.Call("start").EnsureSuccess();
        for (int round = 1; round <= 3; round++)
        {
            string[] changes = [$"--pids-limit {70 + round}", $"--memory {(70 + round) << 20}", $"--cpu-share {700 + round}", $"--memory-reservation {(7 + round) << 20}"];
            System.Diagnostics.Process[] updates = [.. changes.Select((f, i) => c.Begin($"update{i}", ["update", .. f.Split(' '), c.Id]))];
            Assert.All(updates, u => Assert.Equal(0, DetachedContainer.End(u)));
        }

        if (Installation.IsMicroVm)
        {
            // What a later update builds upon.
            System.Text.Json.Nodes.JsonNode kept = System.Text.Json.Nodes.JsonNode.Parse(File.ReadAllText(Path.Combine(c.Root, c.Id, "config.json")))!["linux"]!["resources"]!;
            Assert.Equal(
                (73L, 73L << 20, 703L, 10L << 20),
                ((long)kept["pids"]!["limit"]!, (long)kept["memory"]!["limit"]!, (long)kept["cpu"]!["shares"]!, (long)kept["memory"]!["reservation"]!));
        }

        string figures = c.Call("events", "--stats").EnsureSuccess().StandardOutput;
        Assert.Contains("\"limit\":73}", figures, StringComparison.Ordinal);
        Assert.Contains($"\"limit\":{73 << 20}", figures, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void ABundleThatChangesAfterCreateHasNoEffect()
    {
        Installation.RequireKvm(); // runc reads the bundle again at each exec
        using Bundle bundle = Bundle.Create("echo first $X; sleep 1000");
        bundle.Process["env"] = new System.Text.Json.Nodes.JsonArray("PATH=/bin", "X=1");
        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        bundle.Process["env"] = new System.Text.Json.Nodes.JsonArray("PATH=/bin", "X=2");
        bundle.Save();
        c.Call("start").EnsureSuccess();
        c.WaitForOutput("first 1");
        Assert.Equal("1\n", c.Raw("exec", c.Id, "sh", "-c", "echo $X").EnsureSuccess().StandardOutput);
    }

    [SkippableFact]
    public void EveryFlagChangesItsSetting()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("sleep 1000");
        string cgroup = $"/microvm-e2e/{Guid.NewGuid():N}";
        bundle.Linux["cgroupsPath"] = cgroup;
        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        c.Call("start").EnsureSuccess();
        List<string> found = [];
        foreach ((string flags, string file, _) in FlagTable)
        {
            c.Call("update", flags.Split(' ')).EnsureSuccess();
            found.Add(c.Raw("exec", c.Id, "cat", $"/sys/fs/cgroup/{file}").EnsureSuccess().StandardOutput.Trim());
        }

        Assert.Equal(FlagTable.Select(f => f.Content), found);
        string[] cpus = [.. DetachedContainer.CgroupFolders(cgroup).Select(f => Path.Combine(f, "cpuset.cpus")).Where(File.Exists).Select(f => File.ReadAllText(f).Trim())];
        Assert.Equal(["0"], cpus);
        Assert.Contains("Kernel memory settings are ignored", c.Call("update", "--kernel-memory", "1m").StandardError, StringComparison.Ordinal);
    }
}
