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
