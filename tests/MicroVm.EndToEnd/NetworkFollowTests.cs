using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>What changes in the container's network namespace while the container runs changes inside, too.</summary>
public sealed class NetworkFollowTests
{
    [SkippableFact]
    public void ChangesOfARunningContainersNetworkAreFollowed()
    {
        Installation.RequireKvm();
        Skip.If(NetworkLab.Missing is not null, NetworkLab.Missing);
        using NetworkLab lab = NetworkLab.Create();
        using Bundle bundle = Bundle.Create("httpd -p 80 -h /root; echo ready; while read line; do echo \"<$line>\"; sh -c \"$line\" 2>&1; echo \"<end>\"; done");
        File.WriteAllText(Path.Combine(bundle.Rootfs, "root/page"), "served\n");
        bundle.Linux["namespaces"]!.AsArray().Single(n => (string)n!["type"]! == "network")!["path"] = lab.ContainerPath;
        string before = Look(lab);
        using Container container = Container.Start(bundle);
        container.WaitForOutput("ready");
        Assert.Contains("served", lab.In('R', "busybox wget -q -O - http://10.77.0.2/page"), StringComparison.Ordinal);

        // Addresses, routes and neighbours, added and removed.
        lab.In('C', """
            ip addr add 10.77.0.20/24 dev eth0
            ip addr add fd77::20/64 dev eth0 nodad
            ip route add 10.200.0.0/16 via 10.77.0.1 metric 9
            ip neigh add 10.77.0.201 lladdr 02:aa:00:00:00:02 dev eth0 nud permanent
            ip neigh del 10.77.0.200 dev eth0
            ip link set eth0 mtu 1300
            """);
        Within(container, "ip addr show eth0; ip route; ip neigh", "10.77.0.20/24", "fd77::20/64", "10.200.0.0/16 via 10.77.0.1", "10.77.0.201", "mtu 1300", "!10.77.0.200 ");
        lab.In('R', "busybox wget -q -O - http://10.77.0.20/page; ping -c 1 -W 20 fd77::20; ping -c 1 -W 20 -s 1272 -M do 10.77.0.20");
        lab.In('C', "ip addr del 10.77.0.20/24 dev eth0; ip addr del fd77::20/64 dev eth0; ip route del 10.200.0.0/16 via 10.77.0.1 metric 9; ip link set eth0 mtu 1500");
        Within(container, "ip addr show eth0; ip route", "mtu 1500", "!10.77.0.20/24", "!fd77::20/64", "!10.200.0.0");
        lab.In('R', "ping -c 1 -W 20 -s 1472 -M do 10.77.0.2");

        // The link-layer address: frames of the new one pass, and the interface goes on.
        lab.In('C', "ip link set eth0 address 02:42:ac:11:00:99");
        Within(container, "ip link show eth0", "02:42:ac:11:00:99");
        Assert.Contains("served", lab.In('R', "ip neigh flush dev br0; busybox wget -q -O - http://10.77.0.2/page; ip neigh"), StringComparison.Ordinal);
        Assert.Contains("02:42:ac:11:00:99", lab.In('R', "ip neigh"), StringComparison.Ordinal);

        // Carrier, then the interface's own state; routes are lost on both sides, as anywhere.
        lab.In('R', "ip link set vc down");
        Within(container, "cat /sys/class/net/eth0/carrier", "\n0");
        lab.In('R', "ip link set vc up");
        Within(container, "cat /sys/class/net/eth0/carrier", "\n1");
        lab.In('C', "ip link set eth0 down");
        Within(container, "ip link show eth0; ip route", "!LOWER_UP", "!default");
        lab.In('C', "ip link set eth0 up; ip route add default via 10.77.0.1; ip addr add fd77::2/64 dev eth0 nodad");
        Within(container, "ip link show eth0; ip addr show eth0; ip route", "LOWER_UP", "default via 10.77.0.1", "fd77::2");

        // A queue drops what it is given until its kernel has worked off that the carrier is back, within a second.
        lab.In('R', "for to in 10.77.0.2 fd77::2; do for i in $(seq 20); do ping -c 1 -W 1 $to && continue 2; done; exit 1; done");

        // An interface comes, goes, and comes again: a window is used more than once.
        for (int i = 0; i < 4; i++)
        {
            lab.In('R', $"ip link add tmp type veth peer name v{i}; ip link set tmp netns {Path.GetFileName(lab.ContainerPath)}; ip addr add 10.111.{i}.1/24 dev v{i}; ip link set v{i} up");
            lab.In('C', $"ip link set tmp name late{i}; ip addr add 10.111.{i}.2/24 dev late{i}; ip link set late{i} up");
            Within(container, $"ip addr show late{i}", $"10.111.{i}.2/24", "LOWER_UP");
            Assert.Contains("served", lab.In('R', $"busybox wget -q -O - http://10.111.{i}.2/page"), StringComparison.Ordinal);
            lab.In('R', $"ip link del v{i}");
            Within(container, "ip link", $"!late{i}");
            Assert.Equal(2, lab.In('C', "ip link").Split("mvtap").Length - 1);
        }

        Assert.Contains("served", lab.In('R', "busybox wget -q -O - http://10.77.0.2/page"), StringComparison.Ordinal);
        container.Input.Close();
        Assert.Equal(0, container.Wait().ExitCode);
        lab.In('C', "ip link set eth0 address " + NetworkLab.ContainerMac + "; ip neigh add 10.77.0.200 lladdr 02:aa:00:00:00:01 dev eth0 nud permanent; ip -6 route add default via fd77::1");
        Assert.Equal(before, Look(lab));
    }

    // All that a run may leave behind; numbers that nothing can keep are left out, and link-local addresses, which the kernel
    // makes of the link-layer address anew.
    private static string Look(NetworkLab lab) => lab.In('C', """
        ip -o link | sed 's/^[0-9]*: //' | sort; ip -o addr | grep -v fe80 | sed 's/^[0-9]*: //; s/ tentative//' | sort; ip route; ip -6 route | sort; ip neigh show nud permanent
        for i in lo eth0 net1; do tc qdisc show dev $i; tc filter show dev $i; tc filter show dev $i ingress; done
        """);

    /// <summary>Runs a command inside until its output holds all of <paramref name="wanted"/>, and nothing of what "!" precedes.</summary>
    private static void Within(Container container, string command, params string[] wanted)
    {
        string seen = "";
        for (long end = Environment.TickCount64 + (long)Installation.RunDeadline.TotalMilliseconds; Environment.TickCount64 < end; Thread.Sleep(100))
        {
            int from = container.OutputSoFar.Length;
            container.Input.Write(System.Text.Encoding.UTF8.GetBytes(command + "\n"));
            container.Input.Flush();
            DetachedContainer.Eventually(() => container.OutputSoFar[from..].Contains("<end>", StringComparison.Ordinal), $"{command} answers");
            seen = container.OutputSoFar[from..];
            seen = seen[seen.IndexOf(">\n", StringComparison.Ordinal)..];
            if (wanted.All(w => w.StartsWith('!') ? !seen.Contains(w[1..], StringComparison.Ordinal) : seen.Contains(w, StringComparison.Ordinal)))
            {
                return;
            }
        }

        Assert.Fail($"{command} shows not {string.Join(", ", wanted)}:\n{seen}");
    }
}
