using System.Text.Json.Nodes;
using MicroVm.EndToEnd.Support;
using MicroVm.Linux.Native;

namespace MicroVm.EndToEnd;

/// <summary>A namespace has one VM, tells what it carries, and is as before when the VM is gone, however it went.</summary>
public sealed class NetworkLifeTests
{
    // Waits for its end by a read that nobody answers; the first line tells that it runs.
    private const string Waiting = "httpd -p 80 -h /root; echo ready; exec sleep 100000";

    private const string Everything = """
        ip -o link | sed 's/^[0-9]*: //' | sort; ip -o addr | sed 's/^[0-9]*: //; s/ tentative//' | sort; ip route; ip -6 route | sort; ip neigh show nud permanent
        for i in lo eth0 net1; do tc qdisc show dev $i; tc filter show dev $i; tc filter show dev $i ingress; done
        """;

    [SkippableFact]
    public void ASecondContainerInANamespaceIsInTheVmOfTheFirst()
    {
        Installation.RequireKvm();
        Skip.If(NetworkLab.Missing is not null, NetworkLab.Missing);
        using NetworkLab lab = NetworkLab.Create();

        // Frames from an address that is not the interface's, which the VMM drops.
        using Bundle bundle = InNamespace(lab, """
            ip link add link eth0 name spoof address 02:66:66:66:66:66 type macvlan && ip link set spoof up && ip addr add 10.77.0.66/24 dev spoof
            ping -c 1 -W 1 -I spoof 10.77.0.1 >/dev/null; ip link del spoof

            """ + Waiting);
        using DetachedContainer first = new(bundle);
        first.Create().EnsureSuccess();
        first.Call("start").EnsureSuccess();
        first.WaitForOutput("ready");
        string joined = lab.In('C', Everything);

        using Bundle other = InNamespace(lab, "busybox wget -q -O - http://127.0.0.1/page; ip addr show eth0 | grep -o 10.77.0.2; echo seen");
        using (DetachedContainer elsewhere = new(other))
        {
            // Of another folder of states nothing is known.
            CommandResult refused = elsewhere.Create();
            Assert.Equal(1, refused.ExitCode);
            Assert.Contains("two VMs cannot share a namespace", refused.StandardError, StringComparison.Ordinal);
            Assert.Contains("a network of its own", refused.StandardError, StringComparison.Ordinal);
            Assert.Equal("null", elsewhere.Raw("list", "--format", "json").EnsureSuccess().StandardOutput.Trim());
        }

        using (DetachedContainer second = new(other, first.Root))
        {
            second.Create().EnsureSuccess();
            second.Call("start").EnsureSuccess();
            second.WaitForOutput("seen");
            Assert.Contains("served", second.Output, StringComparison.Ordinal);
            Assert.Contains("10.77.0.2", second.Output, StringComparison.Ordinal);
            Assert.Equal(0, DetachedContainer.Reap(second.Pid));
        }

        Assert.Equal(joined, lab.In('C', Everything));
        Assert.Contains("served", lab.In('R', "busybox wget -q -O - http://10.77.0.2/page"), StringComparison.Ordinal);

        // What it carries, and by which addresses.
        string list = first.Raw("list", "--addresses").EnsureSuccess().StandardOutput;
        Assert.Contains("ADDRESSES", list, StringComparison.Ordinal);
        Assert.Contains("10.77.0.2/24,fd77::2/64,10.99.0.2/24", list, StringComparison.Ordinal);
        Assert.DoesNotContain("10.77.0.2", first.Raw("list").EnsureSuccess().StandardOutput, StringComparison.Ordinal);
        JsonArray json = JsonNode.Parse(first.Raw("list", "--addresses", "--format=json").EnsureSuccess().StandardOutput)!.AsArray();
        Assert.Contains("10.77.0.2/24", json[0]!["addresses"]!.AsArray().Select(a => (string)a!));
        JsonNode stats = JsonNode.Parse(first.Call("events", "--stats").EnsureSuccess().StandardOutput)!["data"]!["network_interfaces"]!;
        JsonNode eth0 = stats.AsArray().Single(i => (string)i!["Name"]! == "eth0")!;
        Assert.True((long)eth0["RxBytes"]! > 300 && (long)eth0["TxBytes"]! > 300 && (long)eth0["RxPackets"]! > 2 && (long)eth0["TxDropped"]! > 0, stats.ToJsonString());
        first.Raw("kill", first.Id, "KILL").EnsureSuccess();
        Assert.Equal(137, DetachedContainer.Reap(first.Pid));
        Assert.DoesNotContain("10.77.0.2", first.Raw("list", "--addresses").EnsureSuccess().StandardOutput, StringComparison.Ordinal);
    }

    [SkippableTheory]
    [InlineData("microvm-vmm")]
    [InlineData("sandbox")]
    [InlineData("proxy")]
    [InlineData("delete --force")]
    public void TheNamespaceIsAsBeforeWhateverIsKilled(string which)
    {
        Installation.RequireKvm();
        Skip.If(NetworkLab.Missing is not null, NetworkLab.Missing);
        using NetworkLab lab = NetworkLab.Create();

        // A filter of the caller's own stays.
        lab.In('C', "tc qdisc add dev net1 ingress; tc filter add dev net1 parent ffff: protocol ip prio 7 u32 match ip dst 203.0.113.9/32 flowid 1:1");
        string before = lab.In('C', Everything);
        using Bundle bundle = InNamespace(lab, Waiting);
        using DetachedContainer container = new(bundle);
        container.Create().EnsureSuccess();
        container.Call("start").EnsureSuccess();
        container.WaitForOutput("ready");

        // One more, which came while it ran, and leaves with the caller.
        lab.In('C', "ip link add late type veth peer name far");
        DetachedContainer.Eventually(() => lab.In('C', "tc filter show dev late ingress").Contains("mirred", StringComparison.Ordinal), "late is joined");
        int victim = which switch { "microvm-vmm" => container.Vmm, "sandbox" => container.Sandbox, _ => container.Pid };
        if (which == "delete --force")
        {
            container.Call("delete", "--force").EnsureSuccess();
        }
        else
        {
            _ = Libc.kill(victim, Libc.SIGKILL);
        }

        Assert.Equal(137, DetachedContainer.Reap(container.Pid));
        container.Call("delete", "--force").EnsureSuccess();
        DetachedContainer.Eventually(() => !lab.In('C', "ip link").Contains("mvtap", StringComparison.Ordinal), "the taps are gone");
        Assert.DoesNotContain("mirred", lab.In('C', "tc filter show dev late ingress"), StringComparison.Ordinal);
        lab.In('C', "ip link del late");
        Assert.Equal(before, lab.In('C', Everything));
    }

    [SkippableFact]
    public void TheNamespaceIsAsBeforeWhenARunIsKilled()
    {
        Installation.RequireKvm();
        Skip.If(NetworkLab.Missing is not null, NetworkLab.Missing);
        using NetworkLab lab = NetworkLab.Create();
        string before = lab.In('C', Everything);
        using Bundle bundle = InNamespace(lab, Waiting);
        using Container container = Container.Start(bundle);
        container.WaitForOutput("ready");
        container.Process.Kill();
        DetachedContainer.Eventually(() => lab.In('C', Everything) == before, $"the namespace is as before:\n{before}\n{lab.In('C', Everything)}");
    }

    [SkippableFact]
    public void WithoutANetworkThereIsLoopback()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("ip -o link | cut -d: -f2; echo hi >/tmp/x; httpd -p 127.0.0.1:80 -h /tmp; wget -q -O - http://127.0.0.1/x; ping -c 1 -W 5 ::1 >/dev/null && echo six; echo routes $(ip route | wc -l)");
        foreach (string set in (string[])["bounding", "effective", "permitted"])
        {
            bundle.Process["capabilities"]![set] = new JsonArray("CAP_NET_RAW", "CAP_NET_BIND_SERVICE");
        }

        CommandResult result = Container.Run(bundle);
        Assert.Equal(["lo", "hi", "six", "routes 0"],
            result.StandardOutput.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(l => l.Trim()));
    }

    private static Bundle InNamespace(NetworkLab lab, string script)
    {
        Bundle bundle = Bundle.Create(script);
        File.WriteAllText(Path.Combine(bundle.Rootfs, "root/page"), "served\n");
        bundle.Linux["namespaces"]!.AsArray().Single(n => (string)n!["type"]! == "network")!["path"] = lab.ContainerPath;
        foreach (string set in (string[])["bounding", "effective", "permitted"])
        {
            bundle.Process["capabilities"]![set] = new JsonArray("CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE");
        }

        return bundle;
    }
}
