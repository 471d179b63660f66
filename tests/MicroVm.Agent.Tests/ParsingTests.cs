using FsCheck;
using FsCheck.Fluent;
using MicroVm.Agent.Boot;
using MicroVm.Agent.Containers;
using MicroVm.Agent.Rootfs;
using MicroVm.Agent.Service;
using MicroVm.Protocol.Agent;
using Xunit;

namespace MicroVm.Agent.Tests;

public class ParsingTests
{
    [Theory]
    [InlineData("console=ttyS0 microvm.log=debug quiet\n", LogLevel.Debug)]
    [InlineData("microvm.log=error", LogLevel.Error)]
    [InlineData("microvm.log=loud xmicrovm.log=debug", LogLevel.Warn)]
    [InlineData("", LogLevel.Warn)]
    public void The_log_level_comes_from_the_command_line(string text, LogLevel expected) =>
        Assert.Equal(expected, BootArguments.Parse(text).LogLevel);

    [Fact]
    public void Interfaces_are_read_from_net_dev()
    {
        const string text = """
            Inter-|   Receive                                                |  Transmit
             face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
                lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0
              eth0: 10 11 12 13 0 0 0 0 20 21 22 23 0 0 0 0
            """;
        NetworkInterfaceStats stats = Assert.Single(NetworkStatistics.Parse(text));
        Assert.Equal(("eth0", 10UL, 13UL, 20UL, 23UL), (stats.Name, stats.RxBytes, stats.RxDropped, stats.TxBytes, stats.TxDropped));
    }

    [Fact]
    public void Any_text_is_read_without_failing() => Prop.ForAll(ArbMap.Default.ArbFor<string>(), text =>
    {
        _ = NetworkStatistics.Parse(text ?? "").ToList();
        _ = BootArguments.Parse(text ?? "");
    }).QuickCheckThrowOnFailure();

    [Fact]
    public void Ids_are_mapped_through_the_user_namespace()
    {
        IdMapping[] maps = [new() { ContainerId = 0, HostId = 100000, Size = 10 }, new() { ContainerId = 10, HostId = 5, Size = 1 }];
        Assert.Equal(100009u, NamespaceFlags.Map(maps, 9));
        Assert.Equal(5u, NamespaceFlags.Map(maps, 10));
        Assert.Equal(11u, NamespaceFlags.Map(maps, 11));
        Assert.Equal(3u, NamespaceFlags.Map([], 3));
    }

    [Theory]
    [InlineData("")]
    [InlineData("..")]
    [InlineData("a/b")]
    [InlineData("0123456789012345678901234567890123456")]
    public void A_malformed_tag_is_refused(string tag) =>
        Assert.Throws<SetupException>(() => new FileSystems(new AgentPaths(), (_, _) => { }).PathOf(tag));
}
