using MicroVm.Oci;
using MicroVm.Sandbox.HostCgroups;

namespace MicroVm.Sandbox.Tests.Runtime;

/// <summary>Where a container's cgroup lies on the host: runc's places, for version 1, 2 and systemd's form.</summary>
public sealed class CgroupPathTests
{
    private const string Mounts = """
        24 23 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
        25 24 0:22 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:5 - cgroup cgroup rw,cpu,cpuacct
        26 24 0:23 /docker/abc /sys/fs/cgroup/memory rw master:3 - cgroup cgroup rw,memory
        27 24 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
        28 24 0:25 / /sys/fs/cgroup/uni\040fied rw - cgroup2 cgroup2 rw,nsdelegate
        29 24 0:23 / /mnt/again rw - cgroup cgroup rw,memory
        30 1 0:9 / /proc rw - proc proc rw
        """;

    private const string Own = "4:memory:/docker/abc/x\n3:cpu,cpuacct:/user\n2:name=systemd:/\n0::/user/session\n";

    [Fact]
    public void HierarchiesAreFound()
    {
        IReadOnlyList<CgroupHierarchy> found = CgroupHierarchy.Parse(Mounts, Own);
        Assert.Equal(
            ["cpu,cpuacct /sys/fs/cgroup/cpu,cpuacct", "memory /sys/fs/cgroup/memory", "name=systemd /sys/fs/cgroup/systemd", " /sys/fs/cgroup/uni fied"],
            found.Select(h => $"{string.Join(',', h.Controllers)} {h.MountPoint}"));
        Assert.Equal("/docker/abc/x", found[1].Own);
        Assert.True(found[3].IsUnified);
        Assert.Empty(CgroupHierarchy.Parse("", Own));
        Assert.Empty(CgroupHierarchy.Parse(Mounts, "garbage"));
    }

    [Theory]
    [InlineData("/a/b", "/sys/fs/cgroup/cpu,cpuacct/a/b", "/sys/fs/cgroup/memory/a/b", "/sys/fs/cgroup/uni fied/a/b")]
    [InlineData("a/b", "/sys/fs/cgroup/cpu,cpuacct/user/a/b", "/sys/fs/cgroup/memory/x/a/b", "/sys/fs/cgroup/uni fied/user/a/b")]
    [InlineData("", "/sys/fs/cgroup/cpu,cpuacct/user/id", "/sys/fs/cgroup/memory/x/id", "/sys/fs/cgroup/uni fied/user/id")]
    [InlineData("/../../etc", "/sys/fs/cgroup/cpu,cpuacct/etc", "/sys/fs/cgroup/memory/etc", "/sys/fs/cgroup/uni fied/etc")]
    [InlineData("../../etc", "/sys/fs/cgroup/cpu,cpuacct/user/etc", "/sys/fs/cgroup/memory/x/etc", "/sys/fs/cgroup/uni fied/user/etc")]
    public void PathsAreRuncs(string path, string cpu, string memory, string unified)
    {
        IReadOnlyList<CgroupHierarchy> found = CgroupHierarchy.Parse(Mounts, Own);
        Assert.Equal(cpu, CgroupPath.Folder(found[0], path, "id", systemd: false));
        Assert.Equal(memory, CgroupPath.Folder(found[1], path, "id", systemd: false));
        Assert.Equal(unified, CgroupPath.Folder(found[3], path, "id", systemd: false));
    }

    [Theory]
    [InlineData("", "/system.slice/microvm-id.scope")]
    [InlineData("machine.slice:libpod:abc", "/machine.slice/libpod-abc.scope")]
    [InlineData("user-1000-x.slice:p:n", "/user.slice/user-1000.slice/user-1000-x.slice/p-n.scope")]
    [InlineData("-.slice:p:n", "/p-n.scope")]
    [InlineData(":p:n.slice", "/system.slice/n.slice")]
    [InlineData("a.slice::n", "/a.slice/n.scope")]
    public void SystemdFormIsAPath(string path, string expected) => Assert.Equal(expected, CgroupPath.SystemdPath(path, "id"));

    [Theory]
    [InlineData("/a/b")]
    [InlineData("a:b")]
    [InlineData("a.slice:b:c:d")]
    [InlineData("a/../b.slice:p:n")]
    [InlineData("a--b.slice:p:n")]
    [InlineData("noslice:p:n")]
    [InlineData("a.slice:p:")]
    public void WhatIsNotSystemdsFormIsNamed(string path) =>
        Assert.Contains(path.Split(':')[0], Assert.Throws<SpecException>(() => CgroupPath.SystemdPath(path, "id")).Message, StringComparison.Ordinal);
}
