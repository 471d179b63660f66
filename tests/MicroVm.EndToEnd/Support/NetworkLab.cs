using System.Diagnostics;

namespace MicroVm.EndToEnd.Support;

/// <summary>
/// Network namespaces with two containers' interfaces on a bridge, and a way to the world that is narrower than their link.
/// Nothing of it touches the host's own network; everything goes with <see cref="Dispose"/>.
/// </summary>
/// <remarks>
/// C and D are the containers' (10.77.0.2 and .3, fd77::2 and ::3), R a router that holds the bridge (10.77.0.1, 10.88.0.1),
/// L beyond it on a link of MTU 1400 (10.88.0.2) and with jumbo frames on a link to C of its own (10.99.0.1), F behind L on
/// an ordinary link (10.66.0.2).
/// </remarks>
internal sealed class NetworkLab : IDisposable
{
    public const string ContainerMac = "02:42:ac:11:00:02";
    private const string Namespaces = "CDRLF";
    private static int s_next;

    private readonly string _name = $"mv{Environment.ProcessId % 100000}x{Interlocked.Increment(ref s_next)}";
    private readonly List<Process> _processes = [];

    /// <summary>Null when namespaces, bridges and NAT can be made here; else why not.</summary>
    public static string? Missing =>
        Environment.UserName != "root" ? "NOT ROOT: no network namespace can be made"
        : !File.Exists("/usr/sbin/ip") && !File.Exists("/sbin/ip") ? "NO ip(8): networking is not tested"
        : !File.Exists("/usr/sbin/iptables") ? "NO iptables(8): port mapping is not tested"
        : null;

    public string ContainerPath => PathOf('C');

    public string RouterPath => PathOf('R');

    public static NetworkLab Create()
    {
        NetworkLab lab = new();
        try
        {
            lab.Make();
            return lab;
        }
        catch
        {
            lab.Dispose();
            throw;
        }
    }

    public string PathOf(char where) => $"/run/netns/{_name}{where}";

    /// <summary>Runs a script in a namespace.</summary>
    public string In(char where, string script) => Try(where, script).EnsureSuccess().StandardOutput;

    /// <summary>Runs a script in a namespace that may fail.</summary>
    public CommandResult Try(char where, string script) => Shell.Run(
        "timeout", $"{(int)Installation.RunDeadline.TotalSeconds}", "ip", "netns", "exec", _name + where, "sh", "-ec", script);

    /// <summary>Starts a program there that runs until the end, and waits for its first line when it is to say that it is ready.</summary>
    public void Start(char where, bool ready, params string[] command)
    {
        Process process = Process.Start(new ProcessStartInfo("ip", ["netns", "exec", _name + where, .. command]) { RedirectStandardOutput = true })!;
        _processes.Add(process);
        if (ready)
        {
            Assert.NotNull(process.StandardOutput.ReadLine());
        }
    }

    public void Dispose()
    {
        foreach (Process process in _processes)
        {
            process.Kill();
            process.WaitForExit();
            process.Dispose();
        }

        foreach (char c in Namespaces)
        {
            if (File.Exists(PathOf(c)))
            {
                Shell.Run("ip", "netns", "del", _name + c);
            }
        }
    }

    private void Make()
    {
        Shell.Run("sh", "-ec", $"""
            for n in {string.Join(' ', Namespaces.AsEnumerable())}; do
                ip netns add {_name}$n
                ip -n {_name}$n link set lo up
            done
            ip -n {_name}C link add eth0 address {ContainerMac} type veth peer name vc netns {_name}R
            ip -n {_name}D link add eth0 address 02:42:ac:11:00:03 type veth peer name vd netns {_name}R
            ip -n {_name}L link add eth0 type veth peer name vl netns {_name}R
            ip -n {_name}C link add net1 mtu 9000 type veth peer name net1 mtu 9000 netns {_name}L
            ip -n {_name}F link add eth0 type veth peer name far netns {_name}L
            """).EnsureSuccess();
        In('R', """
            ip link add br0 type bridge
            ip link set vc master br0 up
            ip link set vd master br0 up
            ip link set br0 up
            ip addr add 10.77.0.1/24 dev br0
            ip addr add fd77::1/64 dev br0 nodad
            ip link set vl mtu 1400 up
            ip addr add 10.88.0.1/24 dev vl
            ip addr add fd88::1/64 dev vl nodad
            ip route add 10.66.0.0/24 via 10.88.0.2
            ip -6 route add fd66::/64 via fd88::2
            echo 1 >/proc/sys/net/ipv4/ip_forward
            echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
            iptables -t nat -A PREROUTING -d 10.88.0.1 -p tcp --dport 8080 -j DNAT --to-destination 10.77.0.2:80
            """);
        In('L', """
            ip link set eth0 mtu 1400 up
            ip addr add 10.88.0.2/24 dev eth0
            ip addr add fd88::2/64 dev eth0 nodad
            ip route add default via 10.88.0.1
            ip -6 route add default via fd88::1
            ip link set net1 up
            ip addr add 10.99.0.1/24 dev net1
            ip addr add fd99::1/64 dev net1 nodad
            ip link set far up
            ip addr add 10.66.0.1/24 dev far
            ip addr add fd66::1/64 dev far nodad
            echo 1 >/proc/sys/net/ipv4/ip_forward
            echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
            """);
        In('F', """
            ip link set eth0 up
            ip addr add 10.66.0.2/24 dev eth0
            ip addr add fd66::2/64 dev eth0 nodad
            ip route add default via 10.66.0.1
            ip -6 route add default via fd66::1
            """);
        In('C', """
            ip link set eth0 up
            ip addr add 10.77.0.2/24 brd + dev eth0
            ip addr add fd77::2/64 dev eth0 nodad
            ip route add default via 10.77.0.1
            ip -6 route add default via fd77::1
            ip link set net1 up
            ip addr add 10.99.0.2/24 dev net1
            ip addr add fd99::2/64 dev net1 nodad
            ip neigh add 10.77.0.200 lladdr 02:aa:00:00:00:01 dev eth0 nud permanent
            """);
        In('D', """
            ip link set eth0 up
            ip addr add 10.77.0.3/24 brd + dev eth0
            ip addr add fd77::3/64 dev eth0 nodad
            ip route add default via 10.77.0.1
            ip -6 route add default via fd77::1
            """);

        // The kernel works off that carriers are there, and makes link-local addresses, within a second or so.
        In('C', """
            for dev in eth0 net1; do
                for i in $(seq 200); do
                    if ip link show $dev | grep -q 'state UP' && ip addr show $dev | grep -q fe80; then continue 2; fi
                    sleep 0.05
                done
                echo "$dev is not up" >&2; exit 1
            done
            """);
    }
}
