using System.Collections.Concurrent;
using System.Diagnostics;
using MicroVm.Agent.Network;
using MicroVm.Linux;
using MicroVm.Linux.Netlink;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Network;
using Xunit;

namespace MicroVm.Sandbox.Tests;

/// <summary>Changes of a namespace while a container runs: heard, read, and carried out by the agent, in namespaces of the host.</summary>
public sealed class NetworkFollowTests
{
    private const string Start = """
        echo 1 >/proc/sys/net/ipv4/conf/all/promote_secondaries
        ip link set lo up
        ip link add eth0 address 02:11:22:33:44:55 type veth peer name far0
        ip link add net1 address 02:11:22:33:44:66 mtu 9000 type veth peer name far1
        ip link set far0 up
        ip link set far1 mtu 9000 up
        ip link set eth0 up
        ip link set net1 up
        ip addr add 10.1.2.3/24 brd + dev eth0
        ip addr add 10.1.2.4/24 dev eth0
        ip addr add fd00:1::5/64 dev eth0 nodad
        ip route add default via 10.1.2.1
        ip route add 10.8.0.0/16 dev net1 scope link
        ip -6 route add default via fd00:1::1 metric 5
        ip rule add from 10.1.2.4 lookup 100 priority 500
        ip neigh add 10.1.2.1 lladdr 02:aa:bb:cc:dd:01 dev eth0 nud permanent
        """;

    private static readonly string[] Observations =
    [
        "ip -o addr show dev eth0", "ip -o addr show dev net1", "ip route show table all", "ip -6 route show table all proto boot", "ip rule",
        "ip -6 rule", "ip neigh show nud permanent", "ip -6 neigh show nud permanent", @"ip -o link show dev eth0 | grep -o 'mtu [0-9]*\|link/ether [0-9a-f:]*\|[<,]UP[,>]'",
    ];

    [SkippableFact]
    public void The_guest_follows_each_change_and_keeps_what_the_container_changed_itself()
    {
        Skip.If(NetworkTests.Missing is not null, NetworkTests.Missing);
        using NetworkNamespace host = NetworkNamespace.Create();
        using NetworkNamespace guest = NetworkNamespace.Create();
        NetworkTests.Shell(host, Start);
        NetworkTests.Shell(guest, """
            ip link add eth5 address 02:11:22:33:44:55 type veth peer name far0
            ip link add eth6 address 02:11:22:33:44:66 mtu 9000 type veth peer name far1
            ip link set far0 up
            ip link set far1 mtu 9000 up
            """);
        NetworkView told = NetworkView.Empty;
        Follow();
        NetworkTests.Shell(guest, "ip route add 172.30.0.0/16 dev eth0; ip addr add 192.168.99.1/32 dev net1");

        // Every step a burst as it may come from a caller; the guest must be as the host's namespace after each.
        foreach (string step in (string[])[
            "ip addr add 10.1.2.9/24 dev eth0; ip addr add fd00:1::9/64 dev eth0 nodad",
            "ip addr del 10.1.2.3/24 dev eth0; ip route replace default via 10.1.2.2",
            "ip -6 addr del fd00:1::9/64 dev eth0",
            "ip route add 10.55.0.0/16 via 10.1.2.7 metric 3; ip route add 10.55.0.0/16 via 10.1.2.8 metric 4; ip route add blackhole 10.66.0.0/16",
            "ip route del 10.55.0.0/16 via 10.1.2.7 metric 3; ip route change 10.55.0.0/16 via 10.1.2.6 metric 4 mtu 1300; ip route del blackhole 10.66.0.0/16",
            "ip -6 route del default; ip -6 route add default via fd00:1::2 metric 7; ip -6 route add fd00:55::/64 dev net1; ip -6 route append fd00:55::/64 dev eth0",
            "ip rule del priority 500; ip rule add to 10.7.0.0/16 lookup 200 priority 501; ip -6 rule add fwmark 1 lookup 201 priority 502",
            "ip neigh del 10.1.2.1 dev eth0; ip neigh add 10.1.2.5 lladdr 02:aa:bb:cc:dd:05 dev eth0 nud permanent",
            "ip neigh replace 10.1.2.5 lladdr 02:aa:bb:cc:dd:06 dev eth0 nud permanent; ip -6 neigh add fd00:1::1 lladdr 02:aa:bb:cc:dd:01 dev eth0 nud permanent",
            "ip link set eth0 mtu 1400",
            "ip link set eth0 address 02:11:22:33:44:77",
            "ip addr flush dev eth0; ip addr add 10.5.5.5/16 dev eth0; ip route add default via 10.5.0.1",
            "ip link set eth0 down",
            "ip link set eth0 up; ip addr add fd00:1::6/64 dev eth0 nodad; ip route add default via 10.5.0.9; ip -6 route add default via fd00:1::2",
            "ip link set eth0 down; ip link set eth0 up",
            "ip addr add fd00:7::1/64 dev eth0 nodad preferred_lft 0 valid_lft 3600",
        ])
        {
            NetworkTests.Shell(host, step);

            // A kernel makes link-local addresses a moment after the link is there.
            string difference = "";
            for (int i = 0; i < 50 && (i == 0 || difference.Length > 0); i++)
            {
                Thread.Sleep(i * 5);
                Follow();
                difference = string.Join('\n', Observations.Where(o => Clean(host, o) != Clean(guest, o)).Select(
                    o => $"{o}\n{Clean(host, o)}\n--- guest\n{Clean(guest, o)}"));
            }

            Assert.True(difference.Length == 0, $"after {step}:\n{difference}");
        }

        Assert.Contains("192.168.99.1", NetworkTests.Shell(guest, "ip addr show net1"), StringComparison.Ordinal);

        // A name belongs to the host, too; the interface is found by its address.
        NetworkTests.Shell(host, "ip link set net1 down; ip link set net1 name lan; ip link set lan up; ip addr add 10.4.4.4/24 dev lan");
        Follow();
        Assert.Contains("10.4.4.4", NetworkTests.Shell(guest, "ip addr show lan"), StringComparison.Ordinal);
        Assert.Null(NetworkDelta.Between([told], told with { Plan = told.Plan.Clone() }, 0));

        void Follow()
        {
            NetworkView now = Read(host);
            NetworkPlan? delta = NetworkDelta.Between([told], now, 0);
            if (delta is not null)
            {
                Apply(guest, delta);
            }

            told = now;
        }
    }

    [SkippableFact]
    public void After_a_failure_everything_is_told_again_and_nothing_stale_stays()
    {
        Skip.If(NetworkTests.Missing is not null, NetworkTests.Missing);
        using NetworkNamespace host = NetworkNamespace.Create();
        using NetworkNamespace guest = NetworkNamespace.Create();
        NetworkTests.Shell(host, Start);
        NetworkTests.Shell(guest, "ip link add eth0 address 02:11:22:33:44:55 type veth peer name far0; ip link set far0 up");
        NetworkView first = Read(host);

        // net1 has no device in the guest; what concerns eth0 is done all the same.
        Assert.Contains("net1", Assert.Throws<LinuxException>(() => Apply(guest, NetworkDelta.Between([NetworkView.Empty], first, 0)!)).Message, StringComparison.Ordinal);
        Assert.Contains("10.1.2.4", NetworkTests.Shell(guest, "ip addr show eth0"), StringComparison.Ordinal);
        Assert.Contains("default via 10.1.2.1", NetworkTests.Shell(guest, "ip route"), StringComparison.Ordinal);

        NetworkTests.Shell(host, "ip link del net1; ip addr del 10.1.2.4/24 dev eth0; ip rule del priority 500; ip neigh del 10.1.2.1 dev eth0");
        NetworkView second = Read(host);
        Apply(guest, NetworkDelta.Between([NetworkView.Empty, first], second, 0)!);
        foreach (string command in Observations.Where(o => !o.Contains("net1", StringComparison.Ordinal)))
        {
            Assert.Equal(Clean(host, command), Clean(guest, command));
        }
    }

    [Fact]
    public void Lifetimes_that_only_ran_on_are_no_change()
    {
        NetworkView before = View(1000, 500), after = View(990, 490);
        Assert.Null(NetworkDelta.Between([before], after, 10));
        Assert.Null(NetworkDelta.Between([before], after, 9));
        Assert.NotNull(NetworkDelta.Between([before], after, 0));
        Assert.NotNull(NetworkDelta.Between([before], View(1000, 500), 10));
        Assert.NotNull(NetworkDelta.Between([before], View(uint.MaxValue, uint.MaxValue), 0));
        Assert.Null(NetworkDelta.Between([View(uint.MaxValue, uint.MaxValue)], View(uint.MaxValue, uint.MaxValue), 100));
        Assert.Null(NetworkDelta.Between([View(1000, 0)], View(900, 0), 100));

        static NetworkView View(uint valid, uint preferred) => new(
            [new HostLink(2, "eth0", [2, 1, 1, 1, 1, 1], 1500, 1, "veth")],
            new NetworkPlan
            {
                Interfaces =
                {
                    new NetworkInterface
                    {
                        Name = "eth0",
                        Addresses = { new NetworkAddress { Local = Google.Protobuf.ByteString.CopyFrom(10, 0, 0, 1), ValidLifetime = valid, PreferredLifetime = preferred } },
                    },
                },
            });
    }

    [SkippableFact]
    public void Changes_are_heard_in_bursts_and_links_that_went_are_named()
    {
        Skip.If(NetworkTests.Missing is not null, NetworkTests.Missing);
        using NetworkNamespace ns = NetworkNamespace.Create();
        NetworkTests.Shell(ns, "ip link add eth0 type veth peer name far0");
        int index = int.Parse(NetworkTests.Shell(ns, "ip -o link show eth0 | cut -d: -f1"), System.Globalization.CultureInfo.InvariantCulture);
        ConcurrentQueue<int[]> turns = [];
        using NetworkWatch watch = new(() => ns.Run(() => new NetlinkMonitor()), removed => turns.Enqueue([.. removed]), [], () => { }, _ => Assert.Fail("no failure"));
        watch.Begin();
        NetworkTests.Shell(ns, "for i in $(seq 1 50); do ip addr add 10.0.0.$i/24 dev eth0; done");
        Eventually(() => !turns.IsEmpty, "the addresses are heard of");
        NetworkTests.Shell(ns, "ip link del eth0");
        Eventually(() => turns.Any(t => t.Contains(index)), "the link's end is heard of");

        // Fifty changes are a few bursts, and silence is silence.
        int quiet = turns.Count;
        Assert.InRange(quiet, 1, 25);
        Thread.Sleep(1200);
        Assert.InRange(turns.Count, quiet, quiet + 1);
    }

    [SkippableFact]
    public void A_caller_is_told_of_once_and_is_no_change()
    {
        Skip.If(NetworkTests.Missing is not null, NetworkTests.Missing);
        using NetworkNamespace ns = NetworkNamespace.Create();
        using EventFd caller = new();
        int calls = 0, turns = 0;
        using NetworkWatch watch = new(() => ns.Run(() => new NetlinkMonitor()), _ => turns++, [caller.Fd], () => calls++, _ => Assert.Fail("no failure"));
        watch.Begin();
        caller.Signal();
        Eventually(() => calls == 1, "the caller is told of");
        Assert.Equal(0, turns);

        // It stays readable, which is the business of the one who was told.
        NetworkTests.Shell(ns, "ip link set lo up");
        Eventually(() => turns > 0, "changes are followed as before");
        Assert.Equal(1, calls);
    }

    [SkippableFact]
    public void Lost_messages_are_a_reason_to_look()
    {
        Skip.If(NetworkTests.Missing is not null, NetworkTests.Missing);
        using NetworkNamespace ns = NetworkNamespace.Create();
        NetworkTests.Shell(ns, "ip link add eth0 type veth peer name far0");
        using NetlinkMonitor monitor = ns.Run(() => new NetlinkMonitor(receiveBytes: 1));
        HashSet<int> removed = [];
        Assert.False(monitor.Drain(removed));
        NetworkTests.Shell(ns, "for i in $(seq 1 100); do ip addr add 10.0.0.$i/24 dev eth0; done");
        Assert.True(monitor.Drain(removed));
        Assert.True(monitor.Overflows > 0);
        Assert.False(monitor.Drain(removed));
        NetworkTests.Shell(ns, "ip link set eth0 up");
        Assert.True(monitor.Drain(removed));
    }

    [SkippableFact]
    public void What_fails_is_told_once_and_tried_again_with_what_went_meanwhile()
    {
        Skip.If(NetworkTests.Missing is not null, NetworkTests.Missing);
        using NetworkNamespace ns = NetworkNamespace.Create();
        NetworkTests.Shell(ns, "ip link add eth0 type veth peer name far0");
        ConcurrentQueue<string> warnings = [];
        ConcurrentQueue<int[]> turns = [];
        void Follow(IReadOnlySet<int> removed)
        {
            turns.Enqueue([.. removed]);
            if (turns.Count < 3)
            {
                throw new InvalidOperationException("not now");
            }
        }

        using NetworkWatch watch = new(() => ns.Run(() => new NetlinkMonitor()), Follow, [], () => { }, warnings.Enqueue);
        watch.Begin();
        NetworkTests.Shell(ns, "ip link del eth0");
        Eventually(() => turns.Count >= 3, "it is tried again without another change");
        Assert.Contains("not now", Assert.Single(warnings), StringComparison.Ordinal);
        Assert.All(turns.Take(3), t => Assert.Equal(2, t.Length));
        NetworkTests.Shell(ns, "ip link set lo up");
        Eventually(() => turns.Count >= 4, "it goes on");
        Assert.Empty(turns.Last());
    }

    private static NetworkView Read(NetworkNamespace ns) => ns.Netlink(s =>
    {
        List<HostLink> links = [.. NamespaceReader.ReadLinks(s).Where(l => !l.Name.StartsWith("far", StringComparison.Ordinal))];
        return new NetworkView(links, NamespaceReader.Read(s, links));
    });

    private static void Apply(NetworkNamespace ns, NetworkPlan plan)
    {
        plan = NetworkPlan.Parser.ParseFrom(Google.Protobuf.MessageExtensions.ToByteArray(plan));
        ns.Run(() =>
        {
            using NetlinkSocket s = new();
            new NetworkSetup(s, "/proc/sys").Apply(plan);
            return 0;
        });
    }

    // Without what the test put into the guest as the container itself would.
    private static string Clean(NetworkNamespace ns, string command) => string.Join('\n', NetworkTests.Clean(NetworkTests.Shell(ns, command)).Split('\n')
        .Where(l => !l.Contains("172.30.", StringComparison.Ordinal) && !l.Contains("192.168.99.", StringComparison.Ordinal)));

    private static void Eventually(Func<bool> condition, string what)
    {
        Stopwatch watch = Stopwatch.StartNew();
        while (!condition())
        {
            Assert.True(watch.Elapsed < TimeSpan.FromSeconds(30), what);
            Thread.Sleep(10);
        }
    }
}
