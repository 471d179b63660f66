using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>A container as Docker configures it, in which commands are executed, which is paused, and whose limits change.</summary>
public sealed class ExecViewFixture : IDisposable
{
    private const string Script = InsideReport.Say + """
        say ids sh -c 'id -u; id -g; id -G'
        say env sh -c 'echo $A $HOME'
        say cwd pwd
        say status cat /proc/self/status
        """;

    private const string FileScript = InsideReport.Say + """
        say status cat /proc/self/status
        say nofile sh -c 'ulimit -Sn; ulimit -Hn'
        say oom cat /proc/self/oom_score_adj
        say same sh -c 'for n in cgroup ipc mnt net pid uts; do test "$(readlink /proc/self/ns/$n)" = "$(readlink /proc/1/ns/$n)" && echo $n; done'
        say cgroup cat /proc/self/cgroup
        exit 9
        """;

    private readonly string _host = Directory.CreateTempSubdirectory("microvm-engine-").FullName;
    private readonly Container? _container;

    public ExecViewFixture()
    {
        if (Installation.WhyNothingRuns is not null)
        {
            return;
        }

        Bundle = Bundle.Create("echo ready; exec sleep 100000");
        Bundle.UseEngineConfig("docker", _host);
        Bundle.Linux["namespaces"]!.AsArray().Add(JsonNode.Parse("""{"type":"cgroup"}"""));
        Bundle.Linux["resources"]!["cpu"] = JsonNode.Parse("""{"shares":512,"quota":90000,"period":100000}""");
        Bundle.Linux["resources"]!["memory"] = JsonNode.Parse("""{"limit":67108864}""");
        _container = Container.Start(Bundle);
        _container.WaitForOutput("ready");

        Flags = Do("exec", "--no-new-privs", "--user", "1000:1001", "--additional-gids", "7", "--cwd", "/tmp", "--env", "A=b", "--cap", "CAP_NET_ADMIN", "ID", "sh", "-c", Script);
        JsonNode process = Bundle.Process.DeepClone();
        process["args"] = new JsonArray("sh", "-c", FileScript);
        process["noNewPrivileges"] = true;
        process["rlimits"] = JsonNode.Parse("""[{"type":"RLIMIT_NOFILE","soft":77,"hard":88}]""");
        process["oomScoreAdj"] = 321;
        process["user"] = JsonNode.Parse("""{"uid":0,"gid":0,"umask":63}""");
        process["execCPUAffinity"] = JsonNode.Parse("""{"initial":"0","final":"0"}""");
        FromFile = Do("exec", "--process", Write("process.json", process), "ID");
        process["apparmorProfile"] = "docker-default";
        Refused = Do("exec", "--process", Write("refused.json", process), "ID");
        Missing = Do("exec", "ID", "no-such-program");

        Do("pause", "ID").EnsureSuccess();
        Paused = Do("exec", "ID", "true");
        Do("resume", "ID").EnsureSuccess();

        File.WriteAllText(Path.Combine(_host, "update.json"), """{"memory":{"limit":60000000},"cpu":{"shares":1024,"burst":20000},"pids":{"limit":99}}""");
        Do("update", "--resources", Path.Combine(_host, "update.json"), "ID").EnsureSuccess();
        File.WriteAllText(Path.Combine(_host, "used.json"), """{"memory":{"limit":4096,"checkBeforeUpdate":true}}""");
        Used = Do("update", "--resources", Path.Combine(_host, "used.json"), "ID");
        Updated = Do("exec", "ID", "sh", "-c", "cd /sys/fs/cgroup; cat memory.max cpu.weight cpu.max cpu.max.burst pids.max");
        Do("kill", "--all", "ID", "KILL").EnsureSuccess();
        End = _container.Wait();
    }

    internal Bundle? Bundle { get; }

    internal CommandResult? Flags { get; }

    internal CommandResult? FromFile { get; }

    internal CommandResult? Refused { get; }

    internal CommandResult? Missing { get; }

    internal CommandResult? Paused { get; }

    internal CommandResult? Used { get; }

    internal CommandResult? Updated { get; }

    internal CommandResult? End { get; }

    public void Dispose()
    {
        _container?.Dispose();
        Bundle?.Dispose();
        Directory.Delete(_host, recursive: true);
    }

    private CommandResult Do(params string[] args) =>
        Shell.Run(Installation.Runtime, ["--root", _container!.Root, .. args.Select(a => a == "ID" ? _container.Id : a)]);

    private string Write(string name, JsonNode process)
    {
        string path = Path.Combine(_host, name);
        File.WriteAllText(path, process.ToJsonString());
        return path;
    }
}

/// <summary>What further processes of a container see and what their callers are told.</summary>
public sealed class ExecViewTests(ExecViewFixture fixture) : IClassFixture<ExecViewFixture>
{
    [SkippableFact]
    public void FlagsAreTheProcesss()
    {
        Installation.RequireRuntime();
        InsideReport report = new(fixture.Flags!);
        Assert.Matches("^1000\n1001\n1001.* 7$", report["ids"]);
        Assert.Equal("b /home", report["env"]);
        Assert.Equal("/tmp", report["cwd"]);
        Assert.Contains("CapBnd:\t00000000a80435fb", report["status"], StringComparison.Ordinal);
        Assert.Contains("Seccomp:\t2", report["status"], StringComparison.Ordinal);
        Assert.Contains("NoNewPrivs:\t1", report["status"], StringComparison.Ordinal);
    }

    [SkippableFact]
    public void TheProcessIsInTheContainersNamespacesAndCgroup()
    {
        Installation.RequireRuntime();
        InsideReport report = new(fixture.FromFile!);
        Assert.Equal("cgroup\nipc\nmnt\nnet\npid\nuts", report["same"]);
        Assert.All(report["cgroup"].Split('\n'), l => Assert.EndsWith(":/", l, StringComparison.Ordinal));
    }

    [SkippableFact]
    public void AProcessFileIsCarriedOut()
    {
        Installation.RequireRuntime();
        InsideReport report = new(fixture.FromFile!);
        Assert.Equal(9, fixture.FromFile!.ExitCode);
        Assert.Contains("NoNewPrivs:\t1", report["status"], StringComparison.Ordinal);
        if (Installation.IsMicroVm)
        {
            // Debian's runc is older than these.
            Assert.Contains("Umask:\t0077", report["status"], StringComparison.Ordinal);
            Assert.Matches("Cpus_allowed_list:\t0\n", report["status"]);
            Assert.Equal("321", report["oom"]);
            Assert.StartsWith("77\n", report["nofile"], StringComparison.Ordinal);
        }

        // As a Go program, runc may find time to raise the soft limit to the hard one.
        Assert.EndsWith("\n88", report["nofile"], StringComparison.Ordinal);
    }

    [SkippableFact]
    public void WhatCannotBeDoneIsRefused()
    {
        Installation.RequireKvm();
        Assert.Equal(255, fixture.Refused!.ExitCode);
        Assert.Contains("process.apparmorProfile is not supported", fixture.Refused.StandardError, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void AMissingProgramIsToldInRuncsWords()
    {
        Installation.RequireRuntime();
        Assert.Equal(255, fixture.Missing!.ExitCode);
        Assert.Contains("exec: \\\"no-such-program\\\": executable file not found in $PATH", fixture.Missing.StandardError, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void APausedContainerTakesNoProcess()
    {
        Installation.RequireRuntime();
        Assert.Equal(255, fixture.Paused!.ExitCode);
        Assert.Contains("cannot exec in a paused container", fixture.Paused.StandardError, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void LimitsChange()
    {
        Installation.RequireKvm();
        Assert.Equal("59998208\n100\n90000 100000\n20000\n99\n", fixture.Updated!.StandardOutput);
        Assert.NotEqual(0, fixture.Used!.ExitCode);
        Assert.Contains("rejecting memory limit 4096 <= usage", fixture.Used.StandardError, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void ACgroupBelowTheContainersMayBeNamed()
    {
        // On the host the cgroups of a container without a VM may be of version 1.
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("mkdir /sys/fs/cgroup/inner && sleep 1000");
        foreach (System.Text.Json.Nodes.JsonNode? mount in bundle.Config["mounts"]!.AsArray())
        {
            if (mount!["type"]!.GetValue<string>().StartsWith("cgroup", StringComparison.Ordinal))
            {
                mount["options"]!.AsArray().RemoveAll(o => o!.GetValue<string>() == "ro");
            }
        }

        using DetachedContainer c = new(bundle);
        Assert.Equal(0, c.Create().ExitCode);
        c.Call("start").EnsureSuccess();
        c.Raw("exec", c.Id, "sh", "-c", "until [ -d /sys/fs/cgroup/inner ]; do sleep 0.05; done").EnsureSuccess();
        Assert.Equal("0::/inner\n", c.Raw("exec", "--cgroup", "inner", c.Id, "cat", "/proc/self/cgroup").EnsureSuccess().StandardOutput);
        Assert.Equal("0::/\n", c.Raw("exec", "--cgroup", "/", c.Id, "cat", "/proc/self/cgroup").EnsureSuccess().StandardOutput);
        CommandResult missing = c.Raw("exec", "--cgroup", "none/such", c.Id, "true");
        Assert.Equal(255, missing.ExitCode);
        Assert.Contains("error adding pid to cgroups: openat /sys/fs/cgroup/none/such/cgroup.procs: no such file or directory", missing.StandardError, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void KillingAllEndsTheContainer()
    {
        Installation.RequireRuntime();
        Assert.Equal(128 + 9, fixture.End!.ExitCode);
    }
}
