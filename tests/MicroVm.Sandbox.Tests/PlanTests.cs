using System.Text;
using MicroVm.Linux.Native;
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
        Assert.Equal(("microvm", true), (plan.Spec.Root.FsTag, plan.Spec.Root.ReadOnly));
        Assert.Matches("^[0-9]+:[0-9]+/rootfs$", plan.Spec.Root.FsPath);
        Assert.Equal(5, plan.Spec.Namespaces.Count);
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
        Assert.Equal((Libc.MS_NOSUID | Libc.MS_STRICTATIME, "mode=755,size=65536k"), (dev.Flags, dev.Data));
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
        Assert.Equal((Proto.Mount.Types.Kind.Export, "microvm", plan.Exports[1].GuestPath, false), (data.Kind, data.FsTag, data.Source, data.SourceIsFile));
        Assert.Equal(Libc.MS_BIND | Libc.MS_REC | Libc.MS_RDONLY, data.Flags);
        Assert.Equal([Libc.MS_PRIVATE | Libc.MS_REC], data.Propagation);
        Assert.Equal((plan.Exports[2].GuestPath, true), (file.Source, file.SourceIsFile));
        Assert.Equal("", plan.Spec.Mounts[2].Data);
    }

    [Theory]
    [InlineData("/x", "bind", "no-such", "no such file or directory")]
    [InlineData("/x", "bind", "", "needs a source")]
    [InlineData("/x", "", "y", "needs a type")]
    [InlineData("/x", "overlay", "overlay", "overlay")]
    [InlineData("/proc", "tmpfs", "tmpfs", "not of type proc")]
    [InlineData("/proc", "bind", "/proc", "not of type proc")]
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

    [SkippableFact]
    public void ASharedMemoryOfTheHostBecomesOneOfTheGuest()
    {
        string shm = "/dev/shm/microvm-" + Guid.NewGuid().ToString("N");
        Skip.IfNot(Directory.Exists("/dev/shm") && File.ReadAllText("/proc/mounts").Contains(" /dev/shm tmpfs ", StringComparison.Ordinal), "no tmpfs at /dev/shm: standing in for one was NOT tested");
        Directory.CreateDirectory(shm);
        try
        {
            Spec spec = Default();
            spec.Mounts = [new() { Destination = "/dev/shm", Type = "bind", Source = shm, Options = ["bind", "nosuid", "rprivate"] }, new() { Destination = "/other", Type = "bind", Source = shm }];
            using ContainerPlan plan = Build(spec);
            Proto.Mount mount = plan.Spec.Mounts[0];
            Assert.Equal((Proto.Mount.Types.Kind.Shared, "tmpfs", Libc.MS_NOSUID), (mount.Kind, mount.Type, mount.Flags));
            Assert.Matches("^mode=1777,size=[1-9][0-9]*$", mount.Data);
            Assert.Equal(Proto.Mount.Types.Kind.Export, plan.Spec.Mounts[1].Kind);
            Skip.IfNot(TryChangeOwner(shm, 100_000, 100_001), "not root: the owner of shared memory was NOT tested");
            using ContainerPlan mapped = Build(spec);
            Assert.Matches("^mode=1777,size=[1-9][0-9]*,uid=100000,gid=100001$", mapped.Spec.Mounts[0].Data);
        }
        finally
        {
            Directory.Delete(shm);
        }
    }

    private static unsafe bool TryChangeOwner(string path, uint user, uint group)
    {
        fixed (byte* p = Encoding.UTF8.GetBytes(path + "\0"))
        {
            return Libc.fchownat(Libc.AT_FDCWD, p, user, group, 0) == 0;
        }
    }

    [Theory]
    [InlineData(0U, "/root")]
    [InlineData(1000U, "/home/user")]
    [InlineData(7U, "/")]
    public void HomeIsTheUsersOrTheRoot(uint uid, string expected) =>
        Assert.Equal(expected, HomeDirectory.Of(uid, "broken\nroot:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:\nagain:x:1000:1000::/no:\n"));

    [Fact]
    public void HomeIsNotFoundOutsideOfTheRoot()
    {
        File.WriteAllText(_folder["passwd"], "root:x:0:0:root:/of/the/host:/bin/sh\n");
        Directory.CreateDirectory(_folder["rootfs/etc"]);
        File.CreateSymbolicLink(_folder["rootfs/etc/passwd"], "../../passwd");
        Proto.Process process = new() { User = new() };
        process.Env.Add("HOME=");
        HomeDirectory.Add(process, _folder["rootfs"]);
        Assert.Equal(["HOME=/"], process.Env);
    }

    [Theory]
    [InlineData(true, "proc dev sys", "", true)]
    [InlineData(false, "proc dev sys", "", false)]
    [InlineData(true, "proc dev", "", false)]
    [InlineData(true, "proc dev sys", "/made", false)]
    [InlineData(true, "proc dev sys made", "/made", true)]
    [InlineData(true, "proc dev sys", "/dev/made", true)]
    [InlineData(true, "proc dev sys", "/dev/../made", false)]
    public void AReadOnlyRootIsOneForTheVmUnlessSomethingMustBeMadeInIt(bool readOnly, string folders, string mount, bool expected)
    {
        foreach (string folder in folders.Split(' '))
        {
            Directory.CreateDirectory(_folder["rootfs/" + folder]);
        }

        Spec spec = Default();
        spec.Root!.Readonly = readOnly;
        if (mount.Length > 0)
        {
            spec.Mounts!.Add(new Mount { Destination = mount, Type = "tmpfs", Source = "tmpfs" });
        }

        Assert.Equal(expected, ReadOnlyRoot.Suffices(spec, _folder["rootfs"]));
    }

    [Fact]
    public void OfSettingsOfOneNameTheLastCounts() => Assert.Equal(
        ["B=2", "A", "A", "=x", "PATH=/bin", "A=3=4"], ProcessEnvironment.Unique(["A=1", "B=2", "PATH=/none", "A", "A", "=x", "A=2", "PATH=/bin", "A=3=4"]));

    [Fact]
    public void HooksOfTheContainersNamespacesAreTheGuests()
    {
        Spec spec = Default();
        spec.Annotations = new() { ["k\"pid\":0"] = "v" };
        spec.Hooks = new()
        {
            CreateContainer = [new() { Path = "/bin/busybox", Args = ["sh", "-c", "x"], Env = ["A=b"], Timeout = 5 }],
            StartContainer = [new() { Path = "/in/container" }],
        };
        if (!File.Exists("/bin/busybox"))
        {
            spec.Hooks.CreateContainer = [];
        }

        using ContainerPlan plan = Build(spec);
        Proto.Hook start = Assert.Single(plan.Spec.StartContainerHooks);
        Assert.Equal(("/in/container", "", 0U), (start.Path, start.FsTag, start.TimeoutSeconds));
        Assert.Equal(["/in/container"], start.Args);
        Assert.Equal("""{"ociVersion":"1.0.2-dev","id":"id","status":"created","pid":""", start.StateBeforePid);
        Assert.StartsWith($",\"bundle\":\"{_folder.Path}\",\"annotations\":", start.StateAfterPid, StringComparison.Ordinal);
        if (spec.Hooks.CreateContainer.Count > 0)
        {
            Proto.Hook create = Assert.Single(plan.Spec.CreateContainerHooks);
            Assert.Equal(("/bin/busybox", "microvm", plan.Exports[1].GuestPath, 5U), (create.Path, create.FsTag, create.FsPath, create.TimeoutSeconds));
            Assert.Equal(["A=b"], create.Env);
            Assert.Contains("\"creating\"", create.StateBeforePid, StringComparison.Ordinal);
            Assert.True(plan.Exports[1] is { Name: "hook1", ReadOnly: true, IsFile: true });
        }
    }

    [Theory]
    [InlineData("/bin/ls", "it needs /lib64/ld-linux-x86-64.so.2")]
    [InlineData("script", "it needs /bin/sh")]
    [InlineData("/no/such/hook", "no such file")]
    public void HooksThatNeedTheHostAreRefusedByName(string path, string named)
    {
        File.WriteAllText(_folder["script"], "#!/bin/sh -e\ntrue\n");
        Spec spec = Default();
        spec.Hooks = new() { CreateContainer = [new() { Path = Path.GetFullPath(path, _folder.Path) }] };
        Exception e = Assert.ThrowsAny<Exception>(() => Build(spec));
        Assert.Contains(named, e.Message, StringComparison.Ordinal);
        Assert.Contains("hooks.createContainer[0].path", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void MalformedHooksOfTheContainerAreRefusedByName()
    {
        Spec spec = Default();
        spec.Hooks = new() { StartContainer = [new() { Path = "sh" }] };
        Assert.Contains("hooks.startContainer[0].path", Assert.Throws<SpecException>(() => Build(spec)).Message, StringComparison.Ordinal);
        spec.Hooks = new() { StartContainer = [new() { Path = "/sh", Timeout = 0 }] };
        Assert.Contains("hooks.startContainer[0].timeout", Assert.Throws<SpecException>(() => Build(spec)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void UserNamespacesMapOwnersOfFileSystemsAndTheCgroup()
    {
        Spec spec = Default();
        spec.Linux!.Namespaces!.Add(new() { Type = "user" });
        spec.Linux.UidMappings = spec.Linux.GidMappings = [new() { ContainerID = 0, HostID = 1000, Size = 10 }, new() { ContainerID = 10, HostID = 5000, Size = 10 }];
        spec.Mounts = [new() { Destination = "/t", Type = "tmpfs", Options = ["uid=3", "gid=12", "mode=700"] }, new() { Destination = "/c", Type = "cgroup" }];
        using ContainerPlan plan = Build(spec);
        Assert.Equal("uid=1003,gid=5002,mode=700", plan.Spec.Mounts[0].Data);
        Assert.Equal(1000U, plan.Spec.Cgroup.Owner);
        spec.Mounts = [new() { Destination = "/t", Type = "tmpfs", Options = ["gid=20"] }];
        Assert.Contains("gid=20 is not mapped", Assert.Throws<SpecException>(() => Build(spec)).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(null, null, "")]
    [InlineData("0", null, "0100000000000000")]
    [InlineData("0", "1,64", "02000000000000000100000000000000")]
    public void ExecAffinityIsAMaskOfTheVmsCpus(string? initial, string? final, string expected)
    {
        Spec spec = Default();
        spec.Process!.ExecCPUAffinity = new() { Initial = initial, Final = final };
        using ContainerPlan plan = Build(spec);
        Assert.Equal(expected, Convert.ToHexString(plan.Spec.Process.CpuAffinity.Span));
    }

    [Fact]
    public void UpdatesBecomeRequests()
    {
        (Proto.UpdateContainerRequest request, Resources merged) = CgroupPlan.Update(
            "c", new() { Memory = new() { Limit = 100, Swap = 200 } }, new() { Memory = new() { Limit = 150, CheckBeforeUpdate = true } }, _warnings);
        Assert.Equal(("c", 150L, 200L), (request.ContainerId, request.RefuseMemoryLimitInUse, request.RefuseMemorySwapLimitInUse));
        Assert.Equal("memory.max 150", string.Join(',', request.Settings.Select(s => $"{s.File} {s.Value}")));
        Assert.Equal(200, merged.Memory!.Swap);
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
    public void NetworkPathsPassAndRelativeDestinationsWarn()
    {
        Spec spec = Default();
        spec.Linux!.Namespaces!.Find(n => n.Type == "network")!.Path = "/run/netns/x";
        spec.Mounts = [new() { Destination = "relative", Type = "tmpfs" }];
        using ContainerPlan plan = Build(spec);
        Assert.Equal("/relative", plan.Spec.Mounts[0].Destination);
        Assert.DoesNotContain(plan.Spec.Namespaces, n => n.Kind == Proto.Namespace.Types.Kind.Network);
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
        Assert.Equal(Libc.MS_SHARED | Libc.MS_REC, plan.Spec.Root.Propagation);
    }

    private ContainerPlan Build(Spec spec) => PlanBuilder.Build(spec, "id", _folder.Path, _folder["rootfs"], _warnings);

    private static Spec Default() => SpecReader.Parse(Encoding.UTF8.GetBytes(DefaultSpec.Json), "config.json", SpecDocument.Config);
}
