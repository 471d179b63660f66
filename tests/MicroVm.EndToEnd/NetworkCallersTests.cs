using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>What callers put around a container: names, mapped ports, routes of several interfaces.</summary>
public sealed class NetworkCallersTests(TwoContainers network) : IClassFixture<TwoContainers>
{
    private const int Port = TwoContainers.Port;

    [SkippableFact]
    public void NamesAreResolvedAsTheMountedFilesSay()
    {
        network.Require();
        Assert.Equal("1 addresses, from 203.0.113.7\n", network.On('C', "net-probe lookup name.test"));
        Assert.Equal((1, "none.test: Name or service not known\n"), network.C.Try("net-probe lookup none.test"));
        Assert.Equal("1 addresses, from 10.66.0.2\n", network.On('C', "net-probe lookup far"));
        Assert.Equal("container-C\n", network.On('C', "cat /etc/hostname"));

        // In one datagram that is longer than names had to themselves in 1987.
        Assert.Equal("60 addresses, from 198.18.0.1\n", network.On('C', "net-probe lookup many-60.test"));
        Assert.Equal(0, network.Names.ByTcp);
        Assert.InRange(network.Names.LongestDatagram, 60 * 16, 1200);

        // Too long for any: the resolver asks again by TCP.
        Assert.Equal("300 addresses, from 198.18.0.1\n", network.On('C', "net-probe lookup many-300.test"));
        Assert.NotEqual(0, network.Names.ByTcp);
    }

    [SkippableTheory]
    [InlineData("ip", "10.88.0.1", "10.88.0.2", "10.77.0.2")]
    [InlineData("ip6", "fd88::1", "fd88::2", "fd77::2")]
    public void PortsMappedByNftablesAreAnswered(string family, string router, string client, string container)
    {
        network.Require();
        Skip.IfNot(File.Exists("/usr/sbin/nft"), "NO nft(8): port mapping by nftables is not tested");
        string target = family == "ip6" ? $"[{container}]" : container;
        network.Lab.In('R', $$"""
            nft -f - <<end
            table {{family}} mapping {
                chain in {
                    type nat hook prerouting priority dstnat
                    {{family}} daddr {{router}} tcp dport 9090 dnat to {{target}}:{{Port}}
                    {{family}} daddr {{router}} udp dport 9090 dnat to {{target}}:{{Port}}
                }
                chain out {
                    type nat hook postrouting priority srcnat
                    {{family}} saddr {{container}} oifname "vl" masquerade
                }
            }
            end
            """);
        try
        {
            foreach (string which in (string[])["get", "put"])
            {
                Assert.Contains("4194304 bytes, sums equal", network.On('L', $"net-peer {which} {router} 9090 4194304"), StringComparison.Ordinal);
            }

            Assert.Equal("50 datagrams of 1200 bytes, 0 lost\n", network.On('L', $"net-peer datagrams {router} 9090 50 1200"));
            Assert.Equal("1000 connections, 0 lost\n", network.On('L', $"net-peer short {router} 9090 1000 16"));

            // The container sees who called; whom it calls sees the router.
            Assert.Equal(client, network.On('L', $"net-peer whoami {router} 9090").Trim());
            Assert.Equal(router, network.On('C', $"net-peer whoami {client} {Port}").Trim());
        }
        finally
        {
            network.Lab.In('R', $"nft delete table {family} mapping");
        }
    }

    [SkippableTheory]
    [InlineData("127.0.0.1")]
    [InlineData("::1")]
    public void LocalhostOfTheNamespaceIsTheContainers(string localhost)
    {
        network.Require();
        string peer = Installation.GuestProgram("net-peer");
        foreach (string which in (string[])["get", "put"])
        {
            Assert.Contains("4194304 bytes, sums equal", network.Lab.In('C', $"{peer} {which} {localhost} {Port} 4194304"), StringComparison.Ordinal);
        }

        Assert.Equal("200 connections, 0 lost\n", network.Lab.In('C', $"{peer} short {localhost} {Port} 200 8"));

        // Nobody listens.
        Assert.NotEqual(0, network.Lab.Try('C', $"{peer} get {localhost} 9 1").ExitCode);
    }

    [SkippableFact]
    public void LocalhostOfTheNamespaceHasWhatListensThereOnTheHost()
    {
        network.Require();
        string peer = Installation.GuestProgram("net-peer");
        network.Lab.Start('C', true, peer, "serve", "8");
        Assert.Contains("4194304 bytes, sums equal", network.Lab.In('C', $"{peer} get 127.0.0.1 8 4194304"), StringComparison.Ordinal);
        Assert.Contains("4194304 bytes, sums equal", network.Lab.In('C', $"{peer} get 10.77.0.2 8 4194304"), StringComparison.Ordinal);
    }

    [SkippableFact]
    public void RoutesOfTwoInterfacesAreChosenByRuleAndMetric()
    {
        Installation.RequireRuntime();
        Skip.If(NetworkLab.Missing is not null, NetworkLab.Missing);
        using NetworkLab lab = NetworkLab.Create();
        lab.Start('F', true, Installation.GuestProgram("net-peer"), "serve", $"{Port}");
        lab.In('C', """
            ip route replace default via 10.77.0.1 dev eth0 metric 100
            ip route del default metric 0
            ip route add default via 10.99.0.1 dev net1 metric 200
            ip route add default via 10.99.0.1 dev net1 table 100
            ip rule add from 10.99.0.2 table 100 priority 1000
            ip -6 route add default via fd99::1 dev net1 metric 2000
            ip -6 route add default via fd99::1 dev net1 table 100
            ip -6 rule add from fd99::2 table 100 priority 1000
            """);

        // Who comes by the wrong interface gets no further.
        lab.In('R', """
            echo 1 >/proc/sys/net/ipv4/conf/br0/rp_filter
            ip -6 route add blackhole fd99::/64
            ip -6 rule add from fd99::/64 prohibit
            """);
        using GuestShell shell = GuestShell.Start(lab.ContainerPath);
        Assert.Equal("10.77.0.2\n", shell.Run($"net-peer whoami 10.66.0.2 {Port}"));
        Assert.Equal("10.99.0.2\n", shell.Run($"net-peer whoami 10.66.0.2 {Port} 10.99.0.2"));
        Assert.Equal("fd77::2\n", shell.Run($"net-peer whoami fd66::2 {Port}"));
        Assert.Equal("fd99::2\n", shell.Run($"net-peer whoami fd66::2 {Port} fd99::2"));
        shell.Run("ip link set eth0 down");
        Assert.Equal("10.99.0.2\n", shell.Run($"net-peer whoami 10.66.0.2 {Port}"));
        Assert.Equal("fd99::2\n", shell.Run($"net-peer whoami fd66::2 {Port}"));
        shell.End();
    }
}
