using System.Diagnostics;
using System.Text.RegularExpressions;
using MicroVm.Agent.Network;
using MicroVm.Linux.Native;
using MicroVm.Linux.Netlink;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Network;

namespace MicroVm.Sandbox.Tests;

/// <summary>
/// What the host reads of a namespace and what the agent makes of it, in namespaces of the host: ip(8) sets one up, and
/// sees the same in the other.
/// </summary>
public sealed partial class NetworkTests
{
    internal static readonly string? Missing =
        Libc.geteuid() != 0 ? "NOT ROOT: no network namespace can be made" : !File.Exists("/usr/sbin/ip") && !File.Exists("/sbin/ip") ? "NO ip(8): networking is not tested" : null;

    [SkippableFact]
    public void The_guest_gets_the_namespaces_addresses_routes_rules_and_neighbours()
    {
        Skip.If(Missing is not null, Missing);
        using NetworkNamespace host = NetworkNamespace.Create();
        using NetworkNamespace guest = NetworkNamespace.Create();
        Shell(host, """
            ip link set lo up
            ip link add eth0 address 02:11:22:33:44:55 type veth peer name far0
            ip link add net1 address 02:11:22:33:44:66 mtu 9000 type veth peer name far1
            ip link set far0 up
            ip link set far1 mtu 9000 up
            echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_ra
            ip link set eth0 up
            ip link set net1 up
            ip addr add 10.1.2.3/24 brd + dev eth0
            ip addr add 10.1.2.4/32 dev eth0 label eth0:one
            ip addr add 192.168.7.1 peer 192.168.7.2/32 dev net1
            ip addr add fd00:1::5/64 dev eth0 nodad
            ip addr add fd00:2::5/64 dev net1 nodad preferred_lft 0 valid_lft 3600
            ip addr add fd00:3::5/128 dev net1 nodad noprefixroute
            ip route add default via 10.1.2.1
            ip route add 10.9.0.0/16 via 169.254.1.1 dev net1 onlink metric 77 mtu 1400
            ip route add 10.8.0.0/16 dev net1 scope link src 192.168.7.1
            ip route add blackhole 10.66.0.0/16
            ip route add default via 10.1.2.254 dev eth0 table 100
            ip route add 10.77.0.0/16 nexthop via 10.1.2.7 dev eth0 weight 2 nexthop dev net1 weight 1
            ip -6 route add default via fd00:1::1 metric 5
            ip -6 route add fd00:99::/64 via fe80::1 dev net1 table 200
            ip rule add from 10.1.2.4 lookup 100 priority 500
            ip -6 rule add to fd00:99::/64 iif lo lookup 200 priority 600
            ip rule add fwmark 0x10/0xff lookup main suppress_prefixlength 0 priority 700
            ip neigh add 10.1.2.1 lladdr 02:aa:bb:cc:dd:01 dev eth0 nud permanent
            ip -6 neigh add fd00:1::1 lladdr 02:aa:bb:cc:dd:01 dev eth0 nud permanent
            """);
        NetworkPlan plan = host.Netlink(s => NamespaceReader.Read(s, [.. NamespaceReader.ReadLinks(s).Where(l => !l.Name.StartsWith("far", StringComparison.Ordinal))]));
        plan = NetworkPlan.Parser.ParseFrom(Google.Protobuf.MessageExtensions.ToByteArray(plan));

        // In the guest other names, the same addresses; one of them has the name that the other is to get.
        Shell(guest, """
            ip link add eth0 address 02:11:22:33:44:66 mtu 9000 type veth peer name far0
            ip link add eth1 address 02:11:22:33:44:55 type veth peer name far1
            ip link set far0 mtu 9000 up
            ip link set far1 up
            """);
        for (int i = 0; i < 2; i++)
        {
            // A plan may be carried out again.
            guest.Run(() =>
            {
                using NetlinkSocket s = new();
                NetworkSetup setup = new(s, "/proc/sys");
                Assert.True(setup.HasAll(plan.Interfaces));
                setup.Apply(plan);
                return 0;
            });
        }

        foreach (string command in (string[])[
            "ip -o addr show dev eth0", "ip -o addr show dev net1", "ip route show table all", "ip -6 route show table all proto boot",
            "ip rule", "ip -6 rule", "ip neigh show nud permanent", "ip -6 neigh show nud permanent", "cat /proc/sys/net/ipv6/conf/eth0/accept_ra"])
        {
            Assert.Equal(Clean(Shell(host, command)), Clean(Shell(guest, command)));
        }

        Assert.Contains("LOOPBACK,UP", Shell(guest, "ip link show lo"), StringComparison.Ordinal);
    }

    [SkippableFact]
    public void An_interface_the_guest_has_no_device_for_is_named()
    {
        Skip.If(Missing is not null, Missing);
        using NetworkNamespace guest = NetworkNamespace.Create();
        NetworkPlan plan = new() { Interfaces = { new NetworkInterface { Name = "eth7", Mac = Google.Protobuf.ByteString.CopyFrom(2, 1, 1, 1, 1, 1) } } };
        guest.Run(() =>
        {
            using NetlinkSocket s = new();
            NetworkSetup setup = new(s, "/proc/sys");
            Assert.False(setup.HasAll(plan.Interfaces));
            Assert.Contains("eth7", Assert.Throws<Linux.LinuxException>(() => setup.Apply(plan)).Message, StringComparison.Ordinal);
            return 0;
        });
    }

    [SkippableFact]
    public void Interfaces_are_joined_to_taps_and_left_as_they_were()
    {
        Skip.If(Missing is not null, Missing);
        using NetworkNamespace ns = NetworkNamespace.Create();
        Shell(ns, """
            ip link add eth0 address 02:11:22:33:44:55 type veth peer name far0
            ip link set far0 up
            ip link set eth0 up
            """);
        Shell(ns, "ip link set far0 netns 1 2>/dev/null || true");
        string path = $"/proc/{Environment.ProcessId}/task/{Environment.CurrentManagedThreadId}/ns/net";
        Assert.Throws<SandboxException>(() => ContainerNetwork.Open("/dev/null"));
        Assert.Throws<SandboxException>(() => ContainerNetwork.Open(path + "x"));
        string before = Shell(ns, "tc qdisc show dev eth0 ingress; tc filter show dev eth0 ingress");
        using ContainerNetwork network = ContainerNetwork.Of(ns);
        Assert.Throws<SandboxException>(() => network.Connect(0));
        List<ConnectedLink> links = network.Connect(2);
        try
        {
            ConnectedLink link = Assert.Single(links, l => l.Link.Name == "eth0");
            Assert.Equal("02:11:22:33:44:55", link.Attachment([3], new NetworkLimits(null, null)).Mac);
            Assert.Contains("mirred", Shell(ns, "tc filter show dev eth0 ingress"), StringComparison.Ordinal);
            Assert.Contains("mirred", Shell(ns, $"tc filter show dev mvtap{link.Link.Index} ingress"), StringComparison.Ordinal);
            Assert.Empty(network.Connect(2));
            Assert.Contains(network.Read().Plan.Interfaces, i => i.Name == "eth0");
            Assert.DoesNotContain("fe80", Shell(ns, $"ip -6 addr show dev mvtap{link.Link.Index}"), StringComparison.Ordinal);
        }
        finally
        {
            links.ForEach(l => l.Dispose());
        }

        network.Disconnect();
        Assert.Equal(before, Shell(ns, "tc qdisc show dev eth0 ingress; tc filter show dev eth0 ingress"));
        Assert.DoesNotContain("mvtap", Shell(ns, "ip link"), StringComparison.Ordinal);
        network.Disconnect();
    }

    [Fact]
    public void Limits_come_from_annotations()
    {
        NetworkLimits limits = NetworkLimits.FromAnnotations(new Dictionary<string, string>
        {
            ["dev.microvm.network.receive.bytes-per-second"] = "1000",
            ["dev.microvm.network.receive.burst-bytes"] = "50",
        });
        Assert.Equal((1000, 50), (limits.Receive!.BytesPerSecond, limits.Receive.BurstBytes));
        Assert.Null(limits.Transmit);
        Assert.Throws<SandboxException>(() => NetworkLimits.FromAnnotations(
            new Dictionary<string, string> { ["dev.microvm.network.transmit.packets-per-second"] = "-1" }));
    }

    // Numbers that differ by nature: indexes, remaining lifetimes, and the peers that are on neither side the same.
    internal static string Clean(string text) => string.Join('\n', Changing().Replace(text, "").Split('\n').Where(l => !l.Contains("far", StringComparison.Ordinal)
        && !l.Contains("fe80::/64", StringComparison.Ordinal) && !l.Contains("ff00::/8", StringComparison.Ordinal) && !l.Contains("local fe80", StringComparison.Ordinal)
        && !l.Contains("dev lo", StringComparison.Ordinal) && !l.Contains("anycast", StringComparison.Ordinal)).Select(l => l.TrimEnd()).Order());

    internal static string Shell(NetworkNamespace ns, string script) => ns.Run(() =>
    {
        using System.Diagnostics.Process process = System.Diagnostics.Process.Start(new ProcessStartInfo("sh", ["-ec", script]) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0 ? output : throw new InvalidOperationException($"{script}: {errors.Result}");
    });

    [GeneratedRegex(@"^\d+: | valid_lft \S+| preferred_lft \S+|expires \d+sec| tentative| nodad|\\", RegexOptions.Multiline)]
    private static partial Regex Changing();
}
