using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>
/// A container as Docker configures it, with hooks of both kinds in its namespaces, and the members of linux and process that
/// Docker leaves out.
/// </summary>
public sealed class DockerViewFixture : IDisposable
{
    private const string Script = InsideReport.Say + """
        say hooks cat /by-create-hook /tmp/by-start-hook
        say home sh -c 'echo $HOME $HOSTNAME'
        say status cat /proc/self/status
        say personality uname -m
        say arguments seccomp-args
        say domainname cat /proc/sys/kernel/domainname
        say scheduler awk '{print $19, $41}' /proc/self/stat
        say ioprio ionice -p $$
        say ports cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range
        say lo cat /sys/class/net/lo/flags
        say root awk '$5 == "/"' /proc/self/mountinfo
        say mounts cat /proc/mounts
        say shm df -k /dev/shm
        say files cat /etc/hosts /etc/hostname /etc/resolv.conf
        say recursive sh -c 'cat /deep/sub/file; echo x > /deep/sub/file || echo refused'
        say rebound sh -c 'echo x > /again/file || echo refused'
        say masked sh -c 'cat /proc/keys /proc/timer_list | wc -c; ls /proc/scsi | wc -l'
        say device sh -c 'ls -l /dev/extra; head -c 4 /dev/extra | wc -c'
        say fifo ls -l /dev/made/pipe
        """;

    private readonly string _host = Directory.CreateTempSubdirectory("microvm-engine-").FullName;

    public DockerViewFixture()
    {
        if (Installation.WhyNothingRuns is not null)
        {
            return;
        }

        Bundle = Bundle.Create(Script);
        Bundle.AddGuestProgram("seccomp-args");
        Bundle.UseEngineConfig("docker", _host);
        Directory.CreateDirectory(Path.Combine(_host, "deep/sub"));
        File.WriteAllText(Path.Combine(_host, "deep/sub/file"), "deep\n");
        Bundle.AddMount("/deep", Path.Combine(_host, "deep"), "bind", "rbind", "rro");
        Bundle.AddMount("/again", Path.Combine(_host, "deep/sub"), "bind", "bind");
        Bundle.AddMount("/again", "", "bind", "bind", "remount", "ro");
        Bundle.AddMount("/tmp", "tmpfs", "tmpfs", "mode=1777");
        Bundle.Config["domainname"] = "inside.example";
        Bundle.Process["scheduler"] = JsonNode.Parse("""{"policy":"SCHED_BATCH","nice":5}""");
        Bundle.Process["ioPriority"] = JsonNode.Parse("""{"class":"IOPRIO_CLASS_BE","priority":6}""");
        Bundle.Linux["personality"] = JsonNode.Parse("""{"domain":"LINUX32"}""");
        Bundle.Linux["rootfsPropagation"] = "shared";
        Bundle.Linux["devices"] = JsonNode.Parse("""
            [{"path":"/dev/extra","type":"c","major":1,"minor":5,"fileMode":384,"uid":5,"gid":6},{"path":"/dev/made/pipe","type":"p","fileMode":420}]
            """);
        Bundle.Config["hooks"] = JsonNode.Parse("""
            {"createContainer":[{"path":"/bin/busybox","args":["sh","-c","cat > by-create-hook; echo >> by-create-hook; echo $GREETING >> by-create-hook"],
                                 "env":["GREETING=from the hook"],"timeout":600}],
             "startContainer":[{"path":"/bin/sh","args":["sh","-c","/bin/cat > /tmp/by-start-hook; echo >> /tmp/by-start-hook; PATH=/bin; ls -d /by-create-hook /proc/1/stat >> /tmp/by-start-hook"]}]}
            """);
        Result = Container.Run(Bundle);
        Report = new InsideReport(Result);
    }

    internal Bundle? Bundle { get; }

    internal CommandResult? Result { get; }

    internal InsideReport? Report { get; }

    internal string Part(string name)
    {
        Installation.RequireRuntime();
        return Report![name];
    }

    /// <summary>A part that Debian's runc does not make: it is older than the member, or its host has cgroup version 1.</summary>
    internal string NewerPart(string name)
    {
        Installation.RequireKvm();
        return Report![name];
    }

    public void Dispose()
    {
        Bundle?.Dispose();
        Directory.Delete(_host, recursive: true);
    }
}

/// <summary>What a container of Docker's sees.</summary>
public sealed class DockerViewTests(DockerViewFixture fixture) : IClassFixture<DockerViewFixture>
{
    [SkippableFact]
    public void NothingIsWarnedOf()
    {
        fixture.NewerPart("home");
        Assert.Equal("", fixture.Result!.StandardError);
        Assert.Equal(0, fixture.Result.ExitCode);
    }

    [SkippableFact]
    public void HooksRunInTheContainersNamespacesWithItsState()
    {
        string[] lines = fixture.Part("hooks").Split('\n');
        JsonNode created = JsonNode.Parse(lines[0])!;
        Assert.Equal(("creating", 1), (created["status"]!.GetValue<string>(), created["pid"]!.GetValue<int>()));
        Assert.Equal(fixture.Bundle!.Path, created["bundle"]!.GetValue<string>());
        Assert.Equal("from the hook", lines[1]);
        JsonNode started = JsonNode.Parse(lines[2])!;
        Assert.Equal(("created", 1), (started["status"]!.GetValue<string>(), started["pid"]!.GetValue<int>()));
        Assert.Equal(["/by-create-hook", "/proc/1/stat"], lines[3..5]);
    }

    [SkippableFact]
    public void HomeIsFoundInTheContainersPasswd() => Assert.Equal("/root c0ffee000000", fixture.Part("home"));

    [SkippableFact]
    public void CapabilitiesAreDockers()
    {
        string status = fixture.Part("status");
        Assert.Contains("CapBnd:\t00000000a80425fb", status, StringComparison.Ordinal);
        Assert.Contains("CapEff:\t00000000a80425fb", status, StringComparison.Ordinal);
        Assert.Contains("CapInh:\t0000000000000000", status, StringComparison.Ordinal);
        Assert.Contains("Seccomp:\t2", status, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void SeccompComparesArguments() =>
        Assert.Equal("persona 0\npersona-no-randomize 1\nfork 0", fixture.Part("arguments"));

    [SkippableFact]
    public void PersonalityAndNamesAreSet()
    {
        Assert.Equal("i686", fixture.NewerPart("personality"));
        Assert.Equal("inside.example", fixture.NewerPart("domainname"));
    }

    [SkippableFact]
    public void SchedulingIsSet()
    {
        // Nice value and policy: SCHED_BATCH.
        Assert.Equal("5 3", fixture.NewerPart("scheduler"));
        Assert.Contains("best-effort: prio 6", fixture.NewerPart("ioprio"), StringComparison.Ordinal);
    }

    [SkippableFact]
    public void SysctlsOfTheNetworkAreSetAndLoopbackIsUp()
    {
        Assert.Equal("0\n0\t2147483647", fixture.Part("ports"));
        Assert.Equal("0x9", fixture.Part("lo"));
    }

    [SkippableFact]
    public void RootIsAsSharedAsAsked() => Assert.Contains(" shared:", fixture.NewerPart("root"), StringComparison.Ordinal);

    [SkippableFact]
    public void FileSystemsOfTheKernelAreMounted()
    {
        string mounts = fixture.NewerPart("mounts");
        Assert.Matches("(?m)^mqueue /dev/mqueue mqueue rw,nosuid,nodev,noexec", mounts);
        Assert.Matches("(?m)^cgroup[2]? /sys/fs/cgroup cgroup2 ro,nosuid,nodev,noexec", mounts);
        Assert.Matches("(?m)^devpts /dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666", mounts);
        Assert.Matches("(?m)^sysfs /sys sysfs ro,nosuid,nodev,noexec", mounts);
        Assert.Contains(" 65536 ", fixture.Part("shm"), StringComparison.Ordinal);
    }

    [SkippableFact]
    public void FilesOfTheEngineAreMounted() =>
        Assert.Equal("hosts of the engine\nhostname of the engine\nresolv.conf of the engine", fixture.Part("files"));

    [SkippableFact]
    public void BindsAreReadOnlyToTheirLeavesAndByRemount()
    {
        Assert.StartsWith("deep\n", fixture.Part("recursive"), StringComparison.Ordinal);
        Assert.Contains("refused", fixture.Part("recursive"), StringComparison.Ordinal);
        Assert.Contains("refused", fixture.Part("rebound"), StringComparison.Ordinal);
    }

    [SkippableFact]
    public void MaskedPathsOfDockerAreEmpty() => Assert.StartsWith("0\n", fixture.Part("masked"), StringComparison.Ordinal);

    [SkippableFact]
    public void DevicesAreMadeAndTheirRulesHold()
    {
        Assert.Matches("^crw------- +1 5 +6 +1, +5 .*/dev/extra\\n4$", fixture.Part("device"));
        Assert.StartsWith("prw-r--r--", fixture.Part("fifo"), StringComparison.Ordinal);
    }
}
