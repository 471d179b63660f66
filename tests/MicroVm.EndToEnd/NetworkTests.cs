using System.Security.Cryptography;
using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>What is ready in the container's network namespace works from inside the VM.</summary>
public sealed class NetworkTests
{
    private const int Mebibytes = 16;

    [SkippableFact]
    public void ANamespacesNetworkWorksFromInside()
    {
        Installation.RequireKvm();
        Skip.If(NetworkLab.Missing is not null, NetworkLab.Missing);
        using NetworkLab lab = NetworkLab.Create();
        using Bundle bundle = Bundle.Create(
            """
            echo states $(cat /sys/class/net/eth0/operstate /sys/class/net/net1/operstate)
            echo interfaces $(ls /sys/class/net); ip -o addr; ip route; ip -6 route; ip neigh; cat /sys/class/net/eth0/address /sys/class/net/net1/mtu
            httpd -p 80 -h /mnt
            ip link add link eth0 name spoof address 02:66:66:66:66:66 type macvlan && ip link set spoof up && ip addr add 10.77.0.66/24 dev spoof
            ping -c 1 -W 2 -I spoof 10.77.0.1 >/dev/null && echo spoofed
            ip link del spoof
            echo ready; read go
            ping -c 2 10.88.0.2 | grep received; ping -c 2 fd88::2 | grep received
            nslookup name.test 10.88.0.2 | grep 203
            wget -q -O - http://10.88.0.2:9000/blob | sha256sum
            wget -q -O - 'http://[fd88::2]:9000/small' | sha256sum
            ping -c 1 -s 8000 10.99.0.1 | grep received
            cat /proc/net/dev | grep eth0
            echo finished; read go
            """);
        UseNamespace(bundle, lab.ContainerPath);
        foreach (string set in (string[])["bounding", "effective", "permitted"])
        {
            bundle.Process["capabilities"]![set] = new JsonArray("CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE");
        }

        string folder = Directory.CreateDirectory(Path.Combine(bundle.Path, "served")).FullName;
        byte[] blob = RandomNumberGenerator.GetBytes(1 << 20);
        using (FileStream file = File.Create(Path.Combine(folder, "blob")))
        {
            for (int i = 0; i < Mebibytes; i++)
            {
                file.Write(blob);
            }
        }

        File.WriteAllBytes(Path.Combine(folder, "small"), blob);
        bundle.AddMount("/mnt", folder, "bind", "rbind", "ro");
        lab.Start('L', false, "busybox", "httpd", "-f", "-p", "9000", "-h", folder);
        using NameServer names = new(lab.PathOf('L'));
        string big = Sum(lab.In('L', $"sha256sum {folder}/blob")), small = Sum(lab.In('L', $"sha256sum {folder}/small"));

        using Container container = Container.Start(bundle);
        container.WaitForOutput("ready");
        string seen = container.OutputSoFar;
        foreach (string part in (string[])[
            "states up up\n", "interfaces eth0 lo net1\n", "inet 10.77.0.2/24 brd 10.77.0.255 scope global eth0", "inet6 fd77::2/64", "inet 10.99.0.2/24", "default via 10.77.0.1 dev eth0",
            "default via fd77::1 dev eth0", "10.77.0.200 dev eth0 lladdr 02:aa:00:00:00:01", NetworkLab.ContainerMac, "\n9000\n", "inet 127.0.0.1/8"])
        {
            Assert.Contains(part, seen, StringComparison.Ordinal);
        }

        // A frame from another address never left the VM.
        Assert.DoesNotContain("spoofed", seen, StringComparison.Ordinal);
        Assert.DoesNotContain("02:66", lab.In('R', "bridge fdb show br br0; ip neigh"), StringComparison.Ordinal);

        // From outside: through a mapped port over a link of a smaller MTU, directly by IPv6, and by the second interface.
        Assert.Equal(big, Sum(lab.In('L', "busybox wget -q -O - http://10.88.0.1:8080/blob | sha256sum")));
        Assert.Equal(small, Sum(lab.In('L', "busybox wget -q -O - 'http://[fd77::2]/small' | sha256sum")));
        Assert.Equal(small, Sum(lab.In('L', "busybox wget -q -O - http://10.99.0.2/small | sha256sum")));
        lab.In('L', "ping -c 1 -W 20 10.77.0.2; ping -c 1 -W 20 fd77::2; ping -c 1 -W 20 -M do -s 8000 10.99.0.2");

        // The interface keeps its addresses on the host, whose own stack does not answer.
        Assert.Contains("10.77.0.2/24", lab.In('C', "ip addr show eth0"), StringComparison.Ordinal);
        Assert.Contains("mvtap", lab.In('C', "ip link"), StringComparison.Ordinal);

        container.Input.Write("go\n"u8);
        container.Input.Flush();
        container.WaitForOutput("finished");
        string[] lines = container.OutputSoFar[container.OutputSoFar.IndexOf("ready", StringComparison.Ordinal)..].Split('\n');
        Assert.Equal(2, lines.Count(l => l.Contains("2 packets received", StringComparison.Ordinal)));
        Assert.Contains(lines, l => l.Contains("203.0.113.7", StringComparison.Ordinal));
        Assert.Contains(lines, l => l.Contains("1 packets received", StringComparison.Ordinal));
        Assert.Equal([big, small], lines.Where(l => l.EndsWith("  -", StringComparison.Ordinal)).Select(Sum));

        container.Input.Write("go\n"u8);
        container.Input.Close();
        Assert.Equal(0, container.Wait().ExitCode);
        Assert.DoesNotContain("mvtap", lab.In('C', "ip link"), StringComparison.Ordinal);
        Assert.DoesNotContain("ingress", lab.In('C', "tc qdisc show dev eth0"), StringComparison.Ordinal);
    }

    [SkippableFact]
    public void AnInterfaceThatComesBetweenCreateAndStartIsThereAndLimitsAreKept()
    {
        Installation.RequireKvm();
        Skip.If(NetworkLab.Missing is not null, NetworkLab.Missing);
        using NetworkLab lab = NetworkLab.Create();
        const int Limit = 500_000;
        lab.Start('R', true, Installation.GuestProgram("net-peer"), "serve", "7");
        using Bundle bundle = Bundle.Create("cat /sys/class/net/eth0/operstate; ip -o addr show dev eth0; net-peer put 10.77.0.1 7 2000000");
        bundle.AddGuestProgram("net-peer");
        bundle.Config["annotations"] = new JsonObject
        {
            ["dev.microvm.network.transmit.bytes-per-second"] = $"{Limit}",
            ["dev.microvm.network.transmit.burst-bytes"] = "10000",
        };

        // As Docker does it: the namespace is of the container's own, and the hook, after creation, puts the interface there.
        string script = Path.Combine(bundle.Path, "hook");
        File.WriteAllText(script, $"""
            #!/bin/sh -e
            pid=$(sed 's/.*"pid": *\([0-9]*\).*/\1/')
            nsenter --net={lab.RouterPath} ip link add eth9 type veth peer name eth0 netns $pid
            nsenter --net={lab.RouterPath} ip link set eth9 master br0 up
            nsenter --net=/proc/$pid/ns/net sh -ec 'ip addr add 10.77.0.9/24 dev eth0; ip link set eth0 up'
            """);
        File.SetUnixFileMode(script, (UnixFileMode)0b111_101_101);
        bundle.Config["hooks"] = new JsonObject { ["createRuntime"] = new JsonArray(new JsonObject { ["path"] = script }) };
        CommandResult result = Container.Run(bundle);
        Assert.True(result.ExitCode == 0, result.ToString());
        Assert.StartsWith("up\n", result.StandardOutput, StringComparison.Ordinal);
        Assert.Contains("inet 10.77.0.9/24", result.StandardOutput, StringComparison.Ordinal);
        Assert.Contains("2000000 bytes, sums equal", result.StandardOutput, StringComparison.Ordinal);

        // At least what the limit takes: its devices are limited like those of the start.
        string seconds = result.StandardOutput.TrimEnd()[..^2].Split(' ')[^1];
        Assert.InRange(double.Parse(seconds, System.Globalization.CultureInfo.InvariantCulture), 2_000_000 / (Limit * 1.05), double.MaxValue);
    }

    [SkippableFact]
    public void TheHostsNetworkIsRefusedByName()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("true");
        UseNamespace(bundle, "/proc/self/ns/net");
        CommandResult result = Container.Run(bundle);
        Assert.Equal(1, result.ExitCode);
        Assert.Contains("is the host's own", result.StandardError, StringComparison.Ordinal);
        JsonArray namespaces = bundle.Linux["namespaces"]!.AsArray();
        namespaces.Remove(namespaces.Single(n => (string)n!["type"]! == "network"));
        result = Container.Run(bundle);
        Assert.Equal(1, result.ExitCode);
        Assert.Contains("the host's network", result.StandardError, StringComparison.Ordinal);
    }

    private static string Sum(string line) => line.Split(' ')[0].Trim();

    private static void UseNamespace(Bundle bundle, string path) =>
        bundle.Linux["namespaces"]!.AsArray().Single(n => (string)n!["type"]! == "network")!["path"] = path;
}
