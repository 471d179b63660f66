using System.Text;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Oci.Mounts;
using MicroVm.Sandbox.Plan;
using Proto = MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Tests;

/// <summary>From a specification to what the agent carries out and what the VM exports.</summary>
public sealed class PlanTests : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly List<string> _warnings = [];

    public PlanTests() => Directory.CreateDirectory(_folder["rootfs"]);

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void DefaultSpecIsResolvedWhole()
    {
        using ContainerPlan plan = Build(Default());
        Assert.Equal(("microvm", "rootfs", true), (plan.Spec.Root.FsTag, plan.Spec.Root.FsPath, plan.Spec.Root.ReadOnly));
        Assert.Equal(6, plan.Spec.Namespaces.Count);
        Assert.Equal(0x20000420UL, plan.Spec.Process.Capabilities.Bounding);
        Assert.True(plan.Spec.Process.NoNewPrivileges);
        Assert.True(plan.Spec.Process.Terminal);
        Assert.Equal(["sh"], plan.Spec.Process.Args);
        Assert.Equal((7U, 1024UL), (plan.Spec.Process.Rlimits[0].Resource, plan.Spec.Process.Rlimits[0].Soft));
        Assert.Equal("id", plan.Spec.Cgroup.Path);
        Assert.False(plan.Spec.Cgroup.DeviceFilter.IsEmpty);
        Assert.Equal(6, plan.Spec.Devices.Count);
        Assert.Equal("cgroup2", Assert.Single(plan.Spec.Mounts, m => m.Destination == "/sys/fs/cgroup").Type);
        Proto.Mount dev = Assert.Single(plan.Spec.Mounts, m => m.Destination == "/dev");
        Assert.Equal((MountFlags.MS_NOSUID | MountFlags.MS_STRICTATIME, "mode=755,size=65536k"), (dev.Flags, dev.Data));
        Assert.Equal("rootfs", Assert.Single(plan.Exports).Name);
        Assert.Empty(_warnings);
    }

    [Fact]
    public void BindsBecomeExports()
    {
        Directory.CreateDirectory(_folder["data"]);
        File.WriteAllText(_folder["file"], "x");
        Spec spec = Default();
        spec.Mounts =
        [
            new() { Destination = "/data", Type = "bind", Source = _folder["data"], Options = ["rbind", "ro", "rprivate"] },
            new() { Destination = "/etc/hosts", Type = "none", Source = "file", Options = ["bind"] },
            new() { Destination = "/all", Type = "bind", Source = "data", Options = ["rbind", "rro", "size=1"] },
        ];
        using ContainerPlan plan = Build(spec);
        Assert.Equal(["rootfs", "mount1", "mount2", "mount3"], plan.Exports.Select(e => e.Name));
        Assert.Equal([false, true, false, true], plan.Exports.Select(e => e.ReadOnly));
        Proto.Mount data = plan.Spec.Mounts[0], file = plan.Spec.Mounts[1];
        Assert.Equal((Proto.Mount.Types.Kind.Export, "microvm", "mount1", false), (data.Kind, data.FsTag, data.Source, data.SourceIsFile));
        Assert.Equal(MountFlags.MS_BIND | MountFlags.MS_REC | MountFlags.MS_RDONLY, data.Flags);
        Assert.Equal([MountFlags.MS_PRIVATE | MountFlags.MS_REC], data.Propagation);
        Assert.Equal(("mount2", true), (file.Source, file.SourceIsFile));
        Assert.Equal("", plan.Spec.Mounts[2].Data);
    }

    [Theory]
    [InlineData("/x", "bind", "no-such", "no such file or directory")]
    [InlineData("/x", "bind", "/dev/null", "neither a directory nor a regular file")]
    [InlineData("/x", "bind", "", "needs a source")]
    [InlineData("/x", "", "y", "needs a type")]
    [InlineData("/proc", "tmpfs", "tmpfs", "not of type proc")]
    [InlineData("/proc/sys/kernel", "tmpfs", "tmpfs", "inside /proc")]
    [InlineData("/a/../proc/self", "tmpfs", "tmpfs", "inside /proc")]
    public void ImpossibleMountsAreNamed(string destination, string type, string source, string named)
    {
        Spec spec = Default();
        spec.Mounts = [new() { Destination = destination, Type = type, Source = source }];
        Exception e = Assert.ThrowsAny<Exception>(() => Build(spec));
        Assert.True(e is SpecException or SandboxException, e.ToString());
        Assert.Contains(named, e.Message, StringComparison.Ordinal);
        Assert.Contains("mounts[0]", e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(null, "id")]
    [InlineData("/docker/abc", "docker/abc")]
    [InlineData("/../../escape/./x", "escape/x")]
    [InlineData("system.slice:docker:abc", "id")]
    [InlineData("/", "id")]
    public void CgroupPathStaysBelowTheRoot(string? path, string expected)
    {
        Spec spec = Default();
        spec.Linux!.CgroupsPath = path;
        using ContainerPlan plan = Build(spec);
        Assert.Equal(expected, plan.Spec.Cgroup.Path);
    }

    [Fact]
    public void WhatIsLeftOutIsTold()
    {
        Spec spec = Default();
        spec.Linux!.Namespaces!.Find(n => n.Type == "network")!.Path = "/run/netns/x";
        spec.Mounts = [new() { Destination = "relative", Type = "tmpfs" }];
        using ContainerPlan plan = Build(spec);
        Assert.Equal("/relative", plan.Spec.Mounts[0].Destination);
        Assert.Contains(_warnings, w => w.Contains("/run/netns/x", StringComparison.Ordinal));
        Assert.Contains(_warnings, w => w.Contains("not absolute", StringComparison.Ordinal));
    }

    [Fact]
    public void OptionalPartsAreResolvedWhenGiven()
    {
        Spec spec = Default();
        spec.Process!.OomScoreAdj = 500;
        spec.Process.User = new() { Uid = 5, Gid = 6, Umask = 18, AdditionalGids = [7] };
        spec.Process.IoPriority = new() { Class = "IOPRIO_CLASS_BE", Priority = 3 };
        spec.Process.Scheduler = new() { Policy = "SCHED_BATCH", Nice = 4 };
        spec.Linux!.Personality = new() { Domain = "LINUX32" };
        spec.Linux.Seccomp = new() { DefaultAction = "SCMP_ACT_ALLOW", Flags = ["SECCOMP_FILTER_FLAG_LOG"], Syscalls = [new() { Names = ["mount"], Action = "SCMP_ACT_ERRNO" }] };
        spec.Linux.RootfsPropagation = "rshared";
        using ContainerPlan plan = Build(spec);
        Proto.Process p = plan.Spec.Process;
        Assert.Equal((500, 5U, 6U, 18U), (p.OomScoreAdj, p.User.Uid, p.User.Gid, p.User.Umask));
        Assert.Equal((3U, 4, 8U, (2U << 13) | 3), (p.Scheduler.Policy, p.Scheduler.Nice, p.Personality, p.IoPriority));
        Assert.Equal(2U, p.SeccompFlags);
        Assert.True(p.SeccompFilter.Length > 0 && p.SeccompFilter.Length % 8 == 0);
        Assert.Equal(MountFlags.MS_SHARED | MountFlags.MS_REC, plan.Spec.Root.Propagation);
    }

    private ContainerPlan Build(Spec spec) => PlanBuilder.Build(spec, "id", _folder.Path, _folder["rootfs"], _warnings);

    private static Spec Default() => SpecReader.Parse(Encoding.UTF8.GetBytes(DefaultSpec.Json), "config.json", SpecJson.Default.Spec);
}
