using System.Text;
using MicroVm.Linux.Native;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Oci.Devices;
using MicroVm.Oci.Mounts;
using MicroVm.Sandbox.Plan;
using Proto = MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Tests;

/// <summary>
/// What engines write: config.json as Podman 4.3, Docker 28.2 and ctr of containerd 1.6 made it on a host without AppArmor and
/// SELinux (host paths replaced by a folder, one of Docker's list of a hundred devices cut short).
/// </summary>
public sealed class EngineConfigTests : IDisposable
{
    private readonly TempFolder _folder = new();
    private readonly List<string> _warnings = [];

    public EngineConfigTests()
    {
        Directory.CreateDirectory(_folder["rootfs/etc"]);
        File.WriteAllText(_folder["rootfs/etc/passwd"], "root:x:0:0:root:/home/of/root:/bin/sh\n");
        foreach (string file in (string[])["hosts", "hostname", "resolv.conf", ".containerenv"])
        {
            File.WriteAllText(_folder[file], "");
        }

        Directory.CreateDirectory(_folder["shm"]);
    }

    public void Dispose() => _folder.Dispose();

    [Theory]
    [InlineData("podman")]
    [InlineData("podman-tuned")]
    [InlineData("ctr")]
    [InlineData("docker")]
    [InlineData("docker-privileged")]
    public void DefaultsOfEnginesAreResolvedWithoutWarning(string name)
    {
        using ContainerPlan plan = Build(name);
        Assert.Empty(_warnings);
        Proto.Namespace.Types.Kind[] kinds = [.. plan.Spec.Namespaces.Select(n => n.Kind)];
        Assert.Contains(Proto.Namespace.Types.Kind.Mount, kinds);
        Assert.DoesNotContain(Proto.Namespace.Types.Kind.Network, kinds);
        Assert.Single(plan.Spec.Process.Env, e => e.StartsWith("HOME=", StringComparison.Ordinal));
        Assert.Equal("mqueue", Assert.Single(plan.Spec.Mounts, m => m.Destination == "/dev/mqueue").Type);
        Assert.True(plan.Spec.Process.SeccompFilter.IsEmpty == name is "ctr" or "docker-privileged" or "podman-tuned");
    }

    [Fact]
    public void PodmansContainerIsItsOwn()
    {
        using ContainerPlan plan = Build("podman");
        Assert.Equal("HOME=/root", Assert.Single(plan.Spec.Process.Env, e => e.StartsWith("HOME=", StringComparison.Ordinal)));
        Assert.Equal(("net/ipv4/ping_group_range", "0 0"), (plan.Spec.Sysctls[0].Path, plan.Spec.Sysctls[0].Value));
        Assert.Equal(18U, plan.Spec.Process.User.Umask);
        Assert.Equal("pids.max 2048", string.Join(',', plan.Spec.Cgroup.Settings.Select(s => $"{s.File} {s.Value}")));
        Assert.Equal("libpod_parent/libpod-c0ffee" + new string('0', 58), plan.Spec.Cgroup.Path);
        Proto.Mount hosts = Assert.Single(plan.Spec.Mounts, m => m.Destination == "/etc/hosts");
        Assert.True(hosts.SourceIsFile);
        Assert.Equal([Libc.MS_PRIVATE | Libc.MS_REC], hosts.Propagation);
    }

    [Fact]
    public void LimitsAndAUserNamespaceAreTheGuests()
    {
        using ContainerPlan plan = Build("podman-tuned");
        Assert.Equal(
            "pids.max 50,memory.max 67108864,cpu.weight 59,cpu.max 50000 100000",
            string.Join(',', plan.Spec.Cgroup.Settings.Select(s => $"{s.File} {s.Value}")));
        Assert.Equal("newinstance,ptmxmode=0666,mode=0620,gid=100005", Assert.Single(plan.Spec.Mounts, m => m.Destination == "/dev/pts").Data);
        Assert.True(Assert.Single(plan.Spec.Mounts, m => m.Destination == "/var/tmp").Tmpcopyup);
        Assert.Equal((0U, 100_000U, 65536U), (plan.Spec.UidMappings[0].ContainerId, plan.Spec.UidMappings[0].HostId, plan.Spec.UidMappings[0].Size));
        Assert.Equal(
            ["net/ipv4/ping_group_range=100000 100000", "fs/nr_open=1048577"], plan.Spec.Sysctls.Select(s => $"{s.Path}={s.Value}"));
        Assert.False(plan.Spec.Cgroup.HasOwner);
    }

    [Fact]
    public void DockersProcessHasItsHome()
    {
        using ContainerPlan plan = Build("docker");
        Assert.Equal("HOME=/home/of/root", plan.Spec.Process.Env[^1]);
        Assert.Equal([0U], plan.Spec.Process.User.AdditionalGids);
        Assert.True(plan.Spec.Process.HasOomScoreAdj);
        Assert.Empty(plan.Spec.Cgroup.Settings);
        Assert.Equal("0 2147483647", plan.Spec.Sysctls[1].Value);
    }

    [Fact]
    public void APrivilegedContainerHasItsDevicesAndCapabilities()
    {
        using ContainerPlan plan = Build("docker-privileged");
        Assert.Equal((1UL << 41) - 1, plan.Spec.Process.Capabilities.Bounding | (7UL << 38));
        Assert.Contains(plan.Spec.Devices, d => d.Path == "/dev/fuse" && d is { Major: 10, Minor: 229 });
        Assert.Equal(DeviceNodes.Defaults.Count, plan.Spec.Devices.Count(d => DeviceNodes.Defaults.Any(n => n.Path == d.Path)));
        Assert.Empty(plan.Spec.MaskedPaths);
    }

    private ContainerPlan Build(string name)
    {
        string text = File.ReadAllText(Path.Combine(AppContext.BaseDirectory, "Engines", name + ".json"))
            .Replace("@FILES@", _folder.Path, StringComparison.Ordinal);
        Spec spec = SpecReader.Parse(Encoding.UTF8.GetBytes(text), "config.json", SpecDocument.Config);
        string rootfs = SpecValidator.Validate(spec, _folder.Path);
        return PlanBuilder.Build(spec, "id", _folder.Path, rootfs, _warnings);
    }
}
