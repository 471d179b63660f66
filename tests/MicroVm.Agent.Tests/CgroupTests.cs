using MicroVm.Agent.Cgroups;
using MicroVm.Agent.Rootfs;
using MicroVm.Protocol.Agent;
using Xunit;

namespace MicroVm.Agent.Tests;

/// <summary>On a directory that stands in for a cgroup2 mount.</summary>
public sealed class CgroupTests : IDisposable
{
    private readonly string _root = Directory.CreateTempSubdirectory().FullName;

    public CgroupTests()
    {
        File.WriteAllText(_root + "/cgroup.controllers", "cpu memory pids\n");
        File.WriteAllText(_root + "/cgroup.subtree_control", "");
    }

    public void Dispose() => Directory.Delete(_root, recursive: true);

    // A container that may make cgroups decides how deep they are; the agent's threads for set-up and removal have small stacks.
    [SkippableFact]
    public void Cgroups_nested_deeply_are_listed_and_removed_on_a_small_stack()
    {
        string? mount = File.ReadLines("/proc/mounts").Select(l => l.Split(' ')).FirstOrDefault(w => w[2] == "cgroup2")?[1];
        Skip.If(mount is null || MicroVm.Linux.Native.Libc.geteuid() != 0, "not root, or no cgroup2 is mounted: nested cgroups were NOT tested");
        string top = $"{mount}/agent-test-{Environment.ProcessId}";
        const int depth = 1000;
        string at = top;
        for (int i = 0; i < depth; i++, at += "/a")
        {
            Directory.CreateDirectory(at);
        }

        int found = -1;
        bool removed = false;
        Thread thread = new(
            () =>
            {
                using ContainerCgroup cgroup = new CgroupTree(mount!).Create(Path.GetFileName(top), []);
                found = cgroup.Processes().Count;
                removed = CgroupTree.Remove(top);
            },
            128 << 10);
        thread.Start();
        thread.Join();
        Assert.Equal(0, found);
        Assert.True(removed);
        Assert.False(Directory.Exists(top));
    }

    [Fact]
    public void Controllers_are_enabled_down_the_path_and_not_in_the_leaf()
    {
        Directory.CreateDirectory(_root + "/pod");
        File.WriteAllText(_root + "/pod/cgroup.subtree_control", "");
        Directory.CreateDirectory(_root + "/pod/c1");
        File.WriteAllText(_root + "/pod/c1/cgroup.subtree_control", "");
        using ContainerCgroup cgroup = new CgroupTree(_root).Create("/pod/c1", []);
        Assert.Equal(_root + "/pod/c1", cgroup.Path);
        Assert.Equal("+cpu +memory +pids", File.ReadAllText(_root + "/cgroup.subtree_control"));
        Assert.Equal("+cpu +memory +pids", File.ReadAllText(_root + "/pod/cgroup.subtree_control"));
        Assert.Equal("", File.ReadAllText(_root + "/pod/c1/cgroup.subtree_control"));
    }

    [Fact]
    public void Settings_are_written_and_a_missing_file_names_its_controller()
    {
        Directory.CreateDirectory(_root + "/c");
        File.WriteAllText(_root + "/c/pids.max", "max");
        using ContainerCgroup cgroup = new CgroupTree(_root).Create("c", [new CgroupSetting { File = "pids.max", Value = "7" }]);
        Assert.Equal("7ax", File.ReadAllText(_root + "/c/pids.max"));
        SetupException e = Assert.Throws<SetupException>(() => cgroup.Apply([new CgroupSetting { File = "hugetlb.2MB.max", Value = "0" }]));
        Assert.Contains("\"hugetlb\"", e.Message, StringComparison.Ordinal);
        Assert.Throws<SetupException>(() => cgroup.Apply([new CgroupSetting { File = "../pids.max", Value = "0" }]));
    }

    [Fact]
    public void A_missing_file_of_an_optional_setting_is_no_error()
    {
        using ContainerCgroup cgroup = Make();
        cgroup.Apply([new CgroupSetting { File = "hugetlb.64KB.max", Value = "0", Optional = true }, new CgroupSetting { File = "pids.max", Value = "9", Optional = true }]);
        Assert.Equal("9ax", File.ReadAllText(_root + "/c/pids.max"));
    }

    [Fact]
    public void Limits_that_are_in_use_already_are_refused_in_runcs_words()
    {
        using ContainerCgroup cgroup = Make();
        File.WriteAllText(_root + "/c/memory.current", "4096\n");
        cgroup.RefuseInUse(4097, 0);
        cgroup.RefuseInUse(0, 0);
        Assert.Equal("rejecting memory limit 4096 <= usage 4096", Assert.Throws<SetupException>(() => cgroup.RefuseInUse(4096, 0)).Message);
        Assert.Equal("rejecting memory+swap limit 1 <= usage 4096", Assert.Throws<SetupException>(() => cgroup.RefuseInUse(9999, 1)).Message);
    }

    [Theory]
    [InlineData("0::/c/init.scope\n", "/c/init.scope")]
    [InlineData("0::/c\n", "/c/.")]
    [InlineData("0::/other/x\n", "/c/.")]
    [InlineData(null, "/c/.")]
    public void A_cgroup_of_the_containers_own_is_found_by_its_inits(string? membership, string expected)
    {
        using ContainerCgroup cgroup = Make();
        Directory.CreateDirectory(_root + "/c/init.scope");
        using ContainerCgroup inner = cgroup.Inner("/c/", membership);
        Assert.Equal(_root + expected, inner.Path);
    }

    [SkippableFact]
    public void A_delegated_cgroup_belongs_to_the_owner()
    {
        Skip.IfNot(Environment.UserName == "root", "not root: giving a cgroup away was NOT tested");
        using ContainerCgroup cgroup = Make();
        cgroup.Delegate(4321);
        string owners = string.Join(' ', new[] { "", "/cgroup.procs", "/pids.max" }.Select(f => Owner(_root + "/c" + f)));
        Assert.Equal("4321 4321 0", owners);
    }

    private static unsafe uint Owner(string path)
    {
        Linux.Native.Libc.statx_t stat;
        fixed (byte* p = System.Text.Encoding.UTF8.GetBytes(path + '\0'))
        {
            Assert.Equal(0, Linux.Native.Libc.statx(Linux.Native.Libc.AT_FDCWD, p, 0, Linux.Native.Libc.STATX_BASIC_STATS, &stat));
        }

        return stat.stx_uid;
    }

    private ContainerCgroup Make()
    {
        Directory.CreateDirectory(_root + "/c");
        File.WriteAllText(_root + "/c/pids.max", "max");
        File.WriteAllText(_root + "/c/cgroup.procs", "");
        return new CgroupTree(_root).Create("c", []);
    }

    [Theory]
    [InlineData("")]
    [InlineData("/")]
    [InlineData("../x")]
    [InlineData("a/../../x")]
    public void A_path_that_leaves_the_hierarchy_is_refused(string path) =>
        Assert.Throws<SetupException>(() => new CgroupTree(_root).Create(path, []));

    [Fact]
    public void Events_and_statistics_are_read()
    {
        Directory.CreateDirectory(_root + "/c");
        using ContainerCgroup cgroup = new CgroupTree(_root).Create("c", []);
        Assert.Equal(0, cgroup.OomKills);
        File.WriteAllText(_root + "/c/memory.events", "low 0\noom 5\noom_kill 3\noom_group_kill 9\n");
        File.WriteAllText(_root + "/c/cgroup.events", "populated 1\nfrozen 1\n");
        File.WriteAllText(_root + "/c/cgroup.procs", "12\n13\n");
        Assert.Equal(3, cgroup.OomKills);
        Assert.True(cgroup.IsFrozen);
        Assert.Equal([12, 13], cgroup.Processes());
        Dictionary<string, string> files = [];
        cgroup.ReadStatistics(files);
        Assert.Equal(["memory.events"], files.Keys);
    }
}
