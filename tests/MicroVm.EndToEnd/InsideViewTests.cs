using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>One container whose script reports what it sees; each test looks at one part of the report.</summary>
public sealed class InsideViewFixture : IDisposable
{
    private const string Script = InsideReport.Say + """
        say uname uname -a
        say pid sh -c 'echo $PPID'
        say ps ps -o pid,comm
        say hostname hostname
        say env sh -c 'echo $GREETING'
        say cwd pwd
        say id id
        say umask sh -c umask
        say caps grep Cap /proc/self/status
        say nnp grep NoNewPrivs /proc/self/status
        say seccomp grep Seccomp: /proc/self/status
        say chmod777 sh -c 'touch /tmp/f && chmod 0777 /tmp/f; echo $?'
        say rlimit sh -c 'ulimit -n; ulimit -Hn'
        say oomscore cat /proc/self/oom_score_adj
        say masked sh -c 'cat /proc/kcore | wc -c; ls /sys/firmware | wc -l'
        say readonlypath sh -c 'echo 1 > /proc/sys/kernel/panic || echo refused'
        say sysctl cat /proc/sys/net/ipv4/ip_forward
        say devices sh -c 'ls -l /dev | sort'
        say devnull sh -c 'echo x > /dev/null; head -c 8 /dev/zero | wc -c; head -c 8 /dev/urandom | wc -c'
        say devport sh -c 'mknod /tmp/port c 1 4 && dd if=/tmp/port of=/dev/null bs=1 count=1 || echo refused'
        say netdevs ls /sys/class/net
        say mounts cat /proc/mounts
        say cgroup cat /proc/self/cgroup
        say pidsmax cat /sys/fs/cgroup/pids.max
        say memorymax cat /sys/fs/cgroup/memory.max
        say cpumax cat /sys/fs/cgroup/cpu.max
        say boundfile cat /mnt/file
        say boundro sh -c 'echo x > /mnt/ro/new || echo refused'
        say boundrw sh -c 'echo from-inside > /mnt/rw/new && cat /mnt/rw/given'
        say tmpfs sh -c 'df -k /scratch | tail -1'
        say shm sh -c 'echo a > /dev/shm/a && cat /dev/shm/a'
        say rootfs sh -c 'mkdir /made && echo written > /made/file && ln -s file /made/link && ln /made/file /made/hard && mv /made/hard /made/moved && chown 12:34 /made/file && chmod 640 /made/file && mknod /made/fifo p && rm /root-victim'
        say find sh -c 'find /made | sort'
        exit 42
        """;

    private readonly string _host = Directory.CreateTempSubdirectory("microvm-volumes-").FullName;
    private readonly InsideReport? _report;

    public InsideViewFixture()
    {
        if (Installation.WhyNothingRuns is not null)
        {
            return;
        }

        Bundle = Bundle.Create(Script);
        JsonObject process = Bundle.Process;
        process["env"]!.AsArray().Add("GREETING=hello from config.json");
        process["cwd"] = "/home/made/by/runtime";
        process["oomScoreAdj"] = 500;
        process["user"]!["additionalGids"] = new JsonArray(7, 8);
        Bundle.Config["hostname"] = "inside-view";
        Bundle.Linux["sysctl"] = new JsonObject { ["net.ipv4.ip_forward"] = "1" };
        Bundle.Linux["resources"]!["pids"] = new JsonObject { ["limit"] = 64 };
        Bundle.Linux["resources"]!["memory"] = new JsonObject { ["limit"] = 48 << 20 };
        Bundle.Linux["resources"]!["cpu"] = new JsonObject { ["quota"] = 90000, ["period"] = 100000 };
        Bundle.Linux["seccomp"] = JsonNode.Parse("""
            {"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
             "syscalls":[{"names":["chmod","fchmodat","fchmod"],"action":"SCMP_ACT_ERRNO","errnoRet":1,
                          "args":[]}]}
            """);
        File.WriteAllText(Path.Combine(_host, "file"), "a single file\n");
        Directory.CreateDirectory(Path.Combine(_host, "rw"));
        Directory.CreateDirectory(Path.Combine(_host, "ro"));
        File.WriteAllText(Path.Combine(_host, "rw/given"), "from the host\n");
        File.WriteAllText(Path.Combine(Bundle.Rootfs, "root-victim"), "to be removed");
        Bundle.AddMount("/mnt/file", Path.Combine(_host, "file"), "bind", "bind", "ro");
        Bundle.AddMount("/mnt/ro", Path.Combine(_host, "ro"), "bind", "rbind", "ro");
        Bundle.AddMount("/mnt/rw", Path.Combine(_host, "rw"), "bind", "rbind", "rw");
        Bundle.AddMount("/scratch", "tmpfs", "tmpfs", "size=4096k", "mode=1777");

        Result = Container.Run(Bundle);
        _report = new InsideReport(Result);
    }

    internal Bundle? Bundle { get; }

    internal CommandResult? Result { get; }

    internal string HostVolumes => _host;

    internal string Report(string name)
    {
        Installation.RequireRuntime();
        return _report![name];
    }

    public void Dispose()
    {
        Bundle?.Dispose();
        Directory.Delete(_host, recursive: true);
    }
}

/// <summary>What a container sees of its surroundings.</summary>
public sealed class InsideViewTests(InsideViewFixture fixture) : IClassFixture<InsideViewFixture>
{
    [SkippableFact]
    public void ExitStatusIsPassedThrough()
    {
        fixture.Report("uname");
        Assert.Equal(42, fixture.Result!.ExitCode);
        Assert.Equal("", fixture.Result.StandardError);
    }

    [SkippableFact]
    public void KernelIsTheGuests()
    {
        Installation.RequireKvm();
        string host = File.ReadAllText("/proc/sys/kernel/osrelease").Trim();
        Assert.DoesNotContain(host, fixture.Report("uname"), StringComparison.Ordinal);
        Assert.StartsWith("Linux inside-view ", fixture.Report("uname"), StringComparison.Ordinal);
    }

    [SkippableFact]
    public void PidNamespaceIsItsOwn()
    {
        Assert.Equal("1", fixture.Report("pid"));
        Assert.DoesNotContain("microvm-agent", fixture.Report("ps"), StringComparison.Ordinal);
    }

    [SkippableFact]
    public void HostnameComesFromConfig() => Assert.Equal("inside-view", fixture.Report("hostname"));

    [SkippableFact]
    public void EnvironmentComesFromConfig() => Assert.Equal("hello from config.json", fixture.Report("env"));

    [SkippableFact]
    public void WorkingDirectoryIsMade() => Assert.Equal("/home/made/by/runtime", fixture.Report("cwd"));

    [SkippableFact]
    public void UserAndGroupsComeFromConfig()
    {
        Assert.Contains("uid=0(root) gid=0(root)", fixture.Report("id"), StringComparison.Ordinal);
        Assert.Matches("groups=.*7.*8", fixture.Report("id"));
    }

    [SkippableFact]
    public void CapabilitiesAreTheConfigsOwn()
    {
        // runc's default configuration: CAP_AUDIT_WRITE (29), CAP_KILL (5), CAP_NET_BIND_SERVICE (10).
        string caps = fixture.Report("caps");
        Assert.Contains("CapPrm:\t0000000020000420", caps, StringComparison.Ordinal);
        Assert.Contains("CapEff:\t0000000020000420", caps, StringComparison.Ordinal);
        Assert.Contains("CapBnd:\t0000000020000420", caps, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void NoNewPrivilegesIsSet() => Assert.Equal("NoNewPrivs:\t1", fixture.Report("nnp"));

    [SkippableFact]
    public void SeccompFilterRefusesWhatItNames()
    {
        Assert.Contains("Seccomp:\t2", fixture.Report("seccomp"), StringComparison.Ordinal);
        Assert.Contains("Operation not permitted", fixture.Report("chmod777"), StringComparison.Ordinal);
    }

    [SkippableFact]
    public void OpenFileLimitComesFromConfig() => Assert.Equal("1024\n1024", fixture.Report("rlimit"));

    [SkippableFact]
    public void OomScoreComesFromConfig() => Assert.Equal("500", fixture.Report("oomscore"));

    [SkippableFact]
    public void MaskedPathsAreEmpty() => Assert.Equal("0\n0", string.Join('\n', fixture.Report("masked").Split('\n').TakeLast(2)));

    [SkippableFact]
    public void ReadOnlyPathsRefuseWrites() => Assert.Contains("refused", fixture.Report("readonlypath"), StringComparison.Ordinal);

    [SkippableFact]
    public void SysctlsAreSet() => Assert.Equal("1", fixture.Report("sysctl"));

    [SkippableFact]
    public void DefaultDevicesAndLinksExist()
    {
        string devices = fixture.Report("devices");
        foreach (string name in (string[])["null", "zero", "full", "random", "urandom", "tty", "ptmx", "fd", "stdin", "stdout", "stderr", "pts", "shm"])
        {
            Assert.Matches($"(?m) {name}( ->.*)?$", devices);
        }

        Assert.Equal("8\n8", fixture.Report("devnull"));
    }

    [SkippableFact]
    public void OtherDevicesAreRefused() => Assert.Contains("refused", fixture.Report("devport"), StringComparison.Ordinal);

    [SkippableFact]
    public void NetworkNamespaceHoldsLoopback() =>
        Assert.Contains("lo", fixture.Report("netdevs").Split('\n'));

    [SkippableFact]
    public void LimitsAreInForceInTheCgroup()
    {
        Skip.IfNot(Installation.IsMicroVm || File.Exists("/sys/fs/cgroup/cgroup.controllers"), "this host has cgroup version 1");
        Assert.Equal("64", fixture.Report("pidsmax"));
        Assert.Equal((48 << 20).ToString(System.Globalization.CultureInfo.InvariantCulture), fixture.Report("memorymax"));
        Assert.Equal("90000 100000", fixture.Report("cpumax"));
        Assert.Equal("0::/", fixture.Report("cgroup"));
    }

    [SkippableFact]
    public void SingleFileIsMounted() => Assert.Equal("a single file", fixture.Report("boundfile"));

    [SkippableFact]
    public void ReadOnlyVolumeRefusesWrites()
    {
        Assert.Contains("refused", fixture.Report("boundro"), StringComparison.Ordinal);
        Assert.Empty(Directory.EnumerateFileSystemEntries(Path.Combine(fixture.HostVolumes, "ro")));
    }

    [SkippableFact]
    public void WritableVolumeIsShared()
    {
        Assert.Equal("from the host", fixture.Report("boundrw"));
        Assert.Equal("from-inside\n", File.ReadAllText(Path.Combine(fixture.HostVolumes, "rw/new")));
    }

    [SkippableFact]
    public void TmpfsHasItsSize() => Assert.Contains(" 4096 ", fixture.Report("tmpfs"), StringComparison.Ordinal);

    [SkippableFact]
    public void SharedMemoryIsWritable() => Assert.Equal("a", fixture.Report("shm"));

    [SkippableFact]
    public void RootfsChangesAreSeenOnTheHost()
    {
        // The default capabilities lack CAP_CHOWN, CAP_FOWNER and CAP_MKNOD: those calls fail inside, as under runc.
        fixture.Report("rootfs");
        string made = Path.Combine(fixture.Bundle!.Rootfs, "made");
        Assert.Equal("written\n", File.ReadAllText(Path.Combine(made, "file")));
        Assert.Equal("file", new FileInfo(Path.Combine(made, "link")).LinkTarget);
        Assert.Equal("written\n", File.ReadAllText(Path.Combine(made, "moved")));
        Assert.Equal("/made\n/made/file\n/made/link\n/made/moved", fixture.Report("find"));
    }
}
