using System.Diagnostics;

namespace MicroVm.EndToEnd.Support;

/// <summary>
/// Three network namespaces: the container's, a router that holds its bridge, and a client beyond the router, on a link of
/// a smaller MTU. Nothing of it touches the host's own network; everything goes with <see cref="Dispose"/>.
/// </summary>
internal sealed class NetworkLab : IDisposable
{
    public const string ContainerMac = "02:42:ac:11:00:02";

    // Answers every question for an address with 203.0.113.7.
    private const string Responder = """
        import socket
        def dns(data): return data[:2] + b'\x81\x80' + data[4:6] + data[4:6] + b'\0\0\0\0' + data[12:] + b'\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\xcb\0\x71\7' if data[-4:-2] == b'\0\1' else data[:2] + b'\x81\x80' + data[4:6] + b'\0\0\0\0\0\0' + data[12:]
        s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(('::', 53)); print('up', flush=True)
        while True:
            data, a = s.recvfrom(4096); s.sendto(dns(data), a)
        """;

    private readonly string _name = $"mv{Environment.ProcessId % 100000}";
    private readonly List<Process> _processes = [];

    /// <summary>Null when namespaces, bridges and NAT can be made here; else why not.</summary>
    public static string? Missing =>
        Environment.UserName != "root" ? "NOT ROOT: no network namespace can be made"
        : !File.Exists("/usr/sbin/ip") && !File.Exists("/sbin/ip") ? "NO ip(8): networking is not tested"
        : !File.Exists("/usr/sbin/iptables") ? "NO iptables(8): port mapping is not tested"
        : !File.Exists("/usr/bin/python3") ? "NO python3: the name server of the test cannot run"
        : null;

    public string ContainerPath => $"/run/netns/{_name}C";

    public string RouterPath => $"/run/netns/{_name}R";

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

    /// <summary>Runs a script in a namespace: C the container's, R the router's, L the client's.</summary>
    public string In(char where, string script) =>
        Shell.Run("ip", "netns", "exec", _name + where, "sh", "-ec", script).EnsureSuccess().StandardOutput;

    /// <summary>Starts a program there that runs until the end.</summary>
    public void Start(char where, params string[] command)
    {
        Process process = Process.Start(new ProcessStartInfo("ip", ["netns", "exec", _name + where, .. command]) { RedirectStandardOutput = true })!;
        _processes.Add(process);
    }

    /// <summary>Starts the client's web server over <paramref name="folder"/>, and its name server.</summary>
    public void Serve(string folder)
    {
        Start('L', "busybox", "httpd", "-f", "-p", "9000", "-h", folder);
        Start('L', "python3", "-c", Responder);
        _processes[^1].StandardOutput.ReadLine();
    }

    public void Dispose()
    {
        foreach (Process process in _processes)
        {
            process.Kill();
            process.WaitForExit();
            process.Dispose();
        }

        foreach (char c in "CRL")
        {
            Shell.Run("ip", "netns", "del", _name + c);
        }
    }

    private void Make()
    {
        foreach (char c in "CRL")
        {
            Shell.Run("ip", "netns", "add", _name + c).EnsureSuccess();
            In(c, "ip link set lo up");
        }

        Shell.Run("sh", "-ec", $"""
            ip -n {_name}C link add eth0 address {ContainerMac} type veth peer name vc netns {_name}R
            ip -n {_name}L link add eth0 type veth peer name vl netns {_name}R
            ip -n {_name}C link add net1 mtu 9000 type veth peer name net1 mtu 9000 netns {_name}L
            """).EnsureSuccess();
        In('R', """
            ip link add br0 type bridge
            ip link set vc master br0 up
            ip link set br0 up
            ip addr add 10.77.0.1/24 dev br0
            ip addr add fd77::1/64 dev br0 nodad
            ip link set vl mtu 1400 up
            ip addr add 10.88.0.1/24 dev vl
            ip addr add fd88::1/64 dev vl nodad
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
            """);
        In('C', """
            ip link set eth0 up
            ip addr add 10.77.0.2/24 brd + dev eth0
            ip addr add fd77::2/64 dev eth0 nodad
            ip route add default via 10.77.0.1
            ip -6 route add default via fd77::1
            ip link set net1 up
            ip addr add 10.99.0.2/24 dev net1
            ip neigh add 10.77.0.200 lladdr 02:aa:00:00:00:01 dev eth0 nud permanent
            """);
    }
}
