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
