using MicroVm.Sandbox.Runtime;
using MicroVm.Shim.Tasks;

namespace MicroVm.Shim.Tests;

/// <summary>Figures in containerd's two forms.</summary>
public sealed class MetricsTests
{
    private static readonly ContainerFigures Figures = new(
        new Dictionary<string, string>
        {
            ["cpu.stat"] = "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_throttled 1\n",
            ["memory.current"] = "4096\n",
            ["memory.max"] = "max\n",
            ["memory.stat"] = "anon 100\nfile 200\nnonsense\n",
            ["memory.events"] = "oom_kill 1\n",
            ["pids.current"] = "3\n",
            ["pids.max"] = "max\n",
            ["io.stat"] = "8:0 rbytes=10 wbytes=20 rios=1 wios=2\n",
        },
        [new InterfaceCounters("eth0", 1, 2, 3, 4, 5, 6, 7, 8)]);

    [Fact]
    public void OfVersionOne()
    {
        Assert.Equal("io.containerd.cgroups.v1.Metrics", Metrics.Of(Figures, unified: false).TypeUrl);
        Api.CgroupsV1.Metrics metrics = Api.CgroupsV1.Metrics.Parser.ParseFrom(Metrics.Of(Figures, unified: false).Value);
        Assert.Equal((5000ul, 2000ul, 3000ul), (metrics.Cpu.Usage.Total, metrics.Cpu.Usage.Kernel, metrics.Cpu.Usage.User));
        Assert.Equal((4096ul, ulong.MaxValue, 200ul), (metrics.Memory.Usage.Usage, metrics.Memory.Usage.Limit, metrics.Memory.Cache));
        Assert.Equal((3ul, 0ul, 1ul), (metrics.Pids.Current, metrics.Pids.Limit, metrics.MemoryOomControl.OomKill));
        Assert.Equal(["Read 10", "Write 20"], metrics.Blkio.IoServiceBytesRecursive.Select(e => $"{e.Op} {e.Value}"));
        Assert.Equal(("eth0", 8ul), (Assert.Single(metrics.Network).Name, metrics.Network[0].TxDropped));
    }

    [Fact]
    public void OfVersionTwo()
    {
        Assert.Equal("io.containerd.cgroups.v2.Metrics", Metrics.Of(Figures, unified: true).TypeUrl);
        Api.CgroupsV2.Metrics metrics = Api.CgroupsV2.Metrics.Parser.ParseFrom(Metrics.Of(Figures, unified: true).Value);
        Assert.Equal((5ul, 4096ul, 100ul), (metrics.Cpu.UsageUsec, metrics.Memory.Usage, metrics.Memory.Anon));
        Assert.Equal((ulong.MaxValue, 1ul), (metrics.Pids.Limit, metrics.MemoryEvents.OomKill));
        Assert.Equal((10ul, 2ul), (Assert.Single(metrics.Io.Usage).Rbytes, metrics.Io.Usage[0].Wios));
    }
}
