using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>Networks whose other end is a program on the host, as slirp4netns and pasta make them: a tap in the namespace.</summary>
public sealed class UserModeNetworkTests
{
    // Answers ARP for 10.0.2.2 and sends datagrams to it back to where they came from.
    private const string Program = """
        import fcntl, os, struct, subprocess
        t = os.open('/dev/net/tun', os.O_RDWR)
        fcntl.ioctl(t, 0x400454ca, struct.pack('16sH', b'tap0', 0x1002) + bytes(22))
        subprocess.run('ip addr add 10.0.2.100/24 dev tap0; ip link set tap0 up; ip route replace default via 10.0.2.2', shell=True, check=True)
        print('up', flush=True)
        mac = b'\x02\0\0\0\0\x02'
        while True:
            f = os.read(t, 65536)
            kind = f[12:14]
            if kind == b'\x08\x06' and f[20:22] == b'\0\1' and f[38:42] == b'\x0a\0\2\2':
                os.write(t, f[6:12] + mac + kind + f[14:20] + b'\0\2' + mac + f[38:42] + f[22:32])
            elif kind == b'\x08\0' and f[23] == 17 and f[30:34] == b'\x0a\0\2\2':
                os.write(t, f[6:12] + mac + f[12:26] + f[30:34] + f[26:30] + f[36:38] + f[34:36] + f[38:40] + b'\0\0' + f[42:])
        """;

    [SkippableFact]
    public void TheTapOfAUserModeNetworkIsJoined()
    {
        Installation.RequireRuntime();
        Skip.If(NetworkLab.Missing is not null, NetworkLab.Missing);
        Skip.IfNot(File.Exists("/usr/bin/python3"), "NO python3: no program for the other end");
        using NetworkLab lab = NetworkLab.Create();
        lab.Start('F', true, "/usr/bin/python3", "-c", Program);
        using GuestShell shell = GuestShell.Start(lab.PathOf('F'));
        Assert.Equal("10.0.2.100/24\n", shell.Run("ip -4 -o addr show dev tap0 | awk '{print $4}'"));
        Assert.Equal("default via 10.0.2.2 dev tap0\n", shell.Run("ip route | grep -o 'default via 10.0.2.2 dev tap0'"));
        Assert.Equal("50 datagrams of 1200 bytes, 0 lost\n", shell.Run("net-peer datagrams 10.0.2.2 7 50 1200"));
        shell.End();
    }

    [SkippableFact]
    public void AnInterfaceThatIsNotEthernetIsRefusedByName()
    {
        Installation.RequireKvm();
        Skip.If(NetworkLab.Missing is not null, NetworkLab.Missing);
        using NetworkLab lab = NetworkLab.Create();
        lab.In('F', "ip tuntap add name vpn0 mode tun; ip link set vpn0 up");
        using Bundle bundle = Bundle.Create("echo ran");
        bundle.Linux["namespaces"]!.AsArray().Single(n => (string)n!["type"]! == "network")!["path"] = lab.PathOf('F');
        CommandResult unused = Container.Run(bundle);
        Assert.Equal((0, "ran\n"), (unused.ExitCode, unused.StandardOutput));
        lab.In('F', "ip addr add 10.7.0.2/24 dev vpn0");
        CommandResult refused = Container.Run(bundle);
        Assert.Equal((1, ""), (refused.ExitCode, refused.StandardOutput));
        Assert.Contains("network interface vpn0 (tun) is not Ethernet", refused.StandardError, StringComparison.Ordinal);
    }
}
