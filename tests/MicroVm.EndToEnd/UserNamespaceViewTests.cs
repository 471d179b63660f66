using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>A container as Podman configures it with limits, a read-only root and a user namespace; with cgroup and time namespaces besides.</summary>
public sealed class UserNamespaceFixture : IDisposable
{
    internal const int First = 100_000;

    private const string Script = InsideReport.Say + """
        say id id
        say maps cat /proc/self/uid_map /proc/self/gid_map
        say owners sh -c 'for i in /etc /dev /dev/null /dev/fd /dev/shm /run /run/given /tmp /mnt/rw/given /etc/hosts /proc/self/fd/1; do stat -c "%n %u %g" $i; done'
        say console sh -c 'echo x > /dev/stdout'
        say root sh -c 'echo x > /new || echo refused'
        say made sh -c 'echo inside > /mnt/rw/new; mkdir /mnt/rw/dir; chown 7:8 /mnt/rw/dir; stat -c "%u %g" /mnt/rw/new /mnt/rw/dir'
        say copied cat /run/given
        say tmpowner stat -c '%u %g' /scratch
        say modes stat -c '%n %a' /run /tmp
        say shm sh -c 'echo a > /dev/shm/a && cat /dev/shm/a; grep /dev/shm /proc/mounts'
        say pts grep /dev/pts /proc/mounts
        say nofile sh -c 'ulimit -n; ulimit -Hn'
        say limits cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.weight /sys/fs/cgroup/cpu.max /sys/fs/cgroup/memory.high
        say cgroup sh -c 'cat /proc/self/cgroup; mkdir /sys/fs/cgroup/inner && echo $$ > /sys/fs/cgroup/inner/cgroup.procs && cat /proc/self/cgroup'
        say ping cat /proc/sys/net/ipv4/ping_group_range
        say uptime cat /proc/uptime
        say namespaces ls /proc/self/ns
        say mknod sh -c 'mknod /tmp/null c 1 3 || echo refused'
        """;

    private readonly string _host = Directory.CreateTempSubdirectory("microvm-engine-").FullName;

    public UserNamespaceFixture()
    {
        if (Installation.WhyNothingRuns is not null)
        {
            return;
        }

        Bundle = Bundle.Create(Script);
        Bundle.UseEngineConfig("podman-tuned", _host);
        JsonArray mounts = Bundle.Config["mounts"]!.AsArray();
        JsonNode cgroup = mounts.First(m => m!["destination"]!.GetValue<string>() == "/sys/fs/cgroup")!;
        cgroup["options"] = new JsonArray("nosuid", "noexec", "nodev");
        Bundle.Linux["namespaces"]!.AsArray().Add(JsonNode.Parse("""{"type":"cgroup"}"""));
        Bundle.Linux["namespaces"]!.AsArray().Add(JsonNode.Parse("""{"type":"time"}"""));
        Bundle.Linux["timeOffsets"] = JsonNode.Parse("""{"boottime":{"secs":1000000},"monotonic":{"secs":5,"nanosecs":6}}""");
        Bundle.Linux["resources"]!["unified"] = JsonNode.Parse("""{"memory.high":"60000000","memory.swap.max":"0"}""");
        Bundle.Linux["resources"]!["hugepageLimits"] = JsonNode.Parse("""[{"pageSize":"64KB","limit":0}]""");
        if (!Installation.IsMicroVm)
        {
            // What Debian's runc is too old for, or its host: time namespaces, cgroup version 2, limits above its own.
            JsonArray namespaces = Bundle.Linux["namespaces"]!.AsArray();
            namespaces.Remove(namespaces.First(n => n!["type"]!.GetValue<string>() == "time"));
            namespaces.Remove(namespaces.First(n => n!["type"]!.GetValue<string>() == "cgroup"));
            Bundle.Linux.Remove("timeOffsets");
            Bundle.Linux.Remove("resources");
            Bundle.Process.Remove("rlimits");
        }

        Bundle.AddMount("/scratch", "tmpfs", "tmpfs", "uid=7", "gid=8", "mode=750");
        Bundle.AddMount("/mnt/rw", _host, "bind", "rbind");
        Directory.CreateDirectory(Path.Combine(Bundle.Rootfs, "run"));
        File.WriteAllText(Path.Combine(Bundle.Rootfs, "run/given"), "of the image\n");
        Directory.CreateDirectory(Path.Combine(Bundle.Rootfs, "scratch"));
        Directory.CreateDirectory(Path.Combine(Bundle.Rootfs, "mnt/rw"));
        Directory.CreateDirectory(Path.Combine(Bundle.Rootfs, "t"));
        Directory.CreateDirectory(Path.Combine(Bundle.Rootfs, "var/tmp"));
        File.WriteAllText(Path.Combine(_host, "given"), "x");
        Shell.Run("chown", "-hR", $"{First}:{First}", Bundle.Rootfs, _host).EnsureSuccess();
        Shell.Run("chown", $"{First}", Bundle.Path).EnsureSuccess();
        Result = Container.Run(Bundle);
        Report = new InsideReport(Result);
        HostView = Shell.Run("stat", "-c", "%u %g", Path.Combine(_host, "new"), Path.Combine(_host, "dir")).StandardOutput;
    }

    internal Bundle? Bundle { get; }

    internal CommandResult? Result { get; }

    internal InsideReport? Report { get; }

    internal string? HostView { get; }

    internal string Part(string name)
    {
        Installation.RequireRuntime();
        return Report![name];
    }

    /// <summary>A part that is left out with other runtimes.</summary>
    internal string OwnPart(string name)
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

/// <summary>What a container in a user namespace sees.</summary>
public sealed class UserNamespaceViewTests(UserNamespaceFixture fixture) : IClassFixture<UserNamespaceFixture>
{
    [SkippableFact]
    public void IdsAreMapped()
    {
        Assert.StartsWith("uid=0(root) gid=0(root)", fixture.Part("id"), StringComparison.Ordinal);
        Assert.All(fixture.Part("maps").Split('\n'), l => Assert.Equal(["0", "100000", "65536"], l.Split(' ', StringSplitOptions.RemoveEmptyEntries)));
        Assert.Equal(0, fixture.Result!.ExitCode);
    }

    [SkippableFact]
    public void WhatTheRuntimeMakesBelongsToTheContainersRoot()
    {
        Assert.All(
            // A runtime without a kernel of its own binds the host's nodes.
            fixture.Part("owners").Split('\n').Where(
                l => !l.StartsWith("/etc/hosts", StringComparison.Ordinal) && (Installation.IsMicroVm || !l.StartsWith("/dev/null", StringComparison.Ordinal))),
            l => Assert.EndsWith(" 0 0", l, StringComparison.Ordinal));
        Assert.Equal("x", fixture.Part("console"));
        Assert.Equal("7 8", fixture.Part("tmpowner"));
        Assert.Equal("/run 755\n/tmp 1777", fixture.Part("modes"));
    }

    [SkippableFact]
    public void FilesOnAVolumeAreTheHostsIdsOutside()
    {
        Assert.Equal("0 0\n7 8", fixture.Part("made"));
        Assert.Equal("100000 100000\n100007 100008\n", fixture.HostView);
    }

    [SkippableFact]
    public void RootIsReadOnlyAndItsFilesAreCopiedUp()
    {
        Assert.Contains("refused", fixture.Part("root"), StringComparison.Ordinal);
        Assert.Equal("of the image", fixture.Part("copied"));
        Assert.StartsWith("a\n", fixture.Part("shm"), StringComparison.Ordinal);
        Assert.Contains("gid=100005", fixture.Part("pts"), StringComparison.Ordinal);
    }

    [SkippableFact]
    public void LimitsAreThoseOfCgroupV1Converted() =>
        Assert.Equal("50\n67108864\n59\n50000 100000\n59998208", fixture.OwnPart("limits"));

    [SkippableFact]
    public void OpenFilesMayBeMoreThanTheKernelsDefault() => Assert.Equal("1048577\n1048577", fixture.OwnPart("nofile"));

    [SkippableFact]
    public void TheCgroupIsTheContainersToShareOut() => Assert.Equal("0::/\n0::/inner", fixture.OwnPart("cgroup"));

    [SkippableFact]
    public void GroupsOfASysctlAreTheContainers() => Assert.Equal("0\t0", fixture.Part("ping"));

    [SkippableFact]
    public void TimeIsOffset() =>
        Assert.True(double.Parse(fixture.OwnPart("uptime").Split(' ')[0], System.Globalization.CultureInfo.InvariantCulture) > 1_000_000);

    [SkippableFact]
    public void DevicesCannotBeMade() => Assert.Contains("refused", fixture.Part("mknod"), StringComparison.Ordinal);
}
