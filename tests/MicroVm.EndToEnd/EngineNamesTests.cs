using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>
/// An engine's resolver of user-defined networks: it listens at 127.0.0.11 in the container's network namespace, on ports to which
/// rules of the namespace lead port 53, as Docker sets it up.
/// </summary>
public sealed class EngineNamesTests
{
    private const string Resolver = """
        import socket, threading
        def answer(q, truncate):
            end = q.index(b'\0', 12) + 5
            name, kind = q[12:end - 4], q[end - 4:end - 2]
            count = 60 if name.startswith(b'\x04many') else 1
            if truncate and count > 1: return q[:2] + b'\x83\x80\0\1\0\0\0\0\0\0' + q[12:end]
            if name.startswith(b'\x04none') or kind != b'\0\1': return q[:2] + b'\x81\x83\0\1\0\0\0\0\0\0' + q[12:end]
            return q[:2] + b'\x81\x80\0\1\0' + bytes([count]) + b'\0\0\0\0' + q[12:end] + b''.join(b'\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x0a\x09\x08' + bytes([7 + i]) for i in range(count))
        u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(('127.0.0.11', 35353))
        t = socket.socket(socket.AF_INET, socket.SOCK_STREAM); t.bind(('127.0.0.11', 34343)); t.listen()
        def datagrams():
            while True:
                q, who = u.recvfrom(4096); u.sendto(answer(q, True), who)
        threading.Thread(target=datagrams, daemon=True).start()
        print('up', flush=True)
        while True:
            c, _ = t.accept(); f = c.makefile('rwb')
            while True:
                n = f.read(2)
                if len(n) < 2: break
                a = answer(f.read(int.from_bytes(n, 'big')), False)
                f.write(len(a).to_bytes(2, 'big') + a); f.flush()
            c.close()
        """;

    private const string Rules = """
        iptables -t nat -A OUTPUT -d 127.0.0.11 -p udp --dport 53 -j DNAT --to-destination 127.0.0.11:35353
        iptables -t nat -A OUTPUT -d 127.0.0.11 -p tcp --dport 53 -j DNAT --to-destination 127.0.0.11:34343
        iptables -t nat -A POSTROUTING -s 127.0.0.11 -p udp --sport 35353 -j SNAT --to-source :53
        iptables -t nat -A POSTROUTING -s 127.0.0.11 -p tcp --sport 34343 -j SNAT --to-source :53
        """;

    [SkippableFact]
    public void NamesAreAnsweredByTheResolverOfTheNamespace()
    {
        Installation.RequireRuntime();
        Skip.If(NetworkLab.Missing is not null, NetworkLab.Missing);
        Skip.IfNot(File.Exists("/usr/bin/python3"), "NO python3: the resolver of an engine is not tested");
        using NetworkLab lab = NetworkLab.Create();
        lab.In('C', Rules);
        lab.Start('C', true, "/usr/bin/python3", "-c", Resolver);
        using GuestShell shell = GuestShell.Start(lab.ContainerPath);
        shell.Run("echo nameserver 127.0.0.11 >/etc/resolv.conf; echo options attempts:5 >>/etc/resolv.conf");
        Assert.Equal("1 addresses, from 10.9.8.7\n", shell.Run("net-probe lookup other.container"));
        Assert.Contains("not known", shell.Run("net-probe lookup none.container; true"), StringComparison.Ordinal);

        // A datagram says that there is more, which TCP gives.
        Assert.Equal("60 addresses, from 10.9.8.7\n", shell.Run("net-probe lookup many.container"));
        Assert.Equal("20\n", shell.Run("for i in $(seq 20); do nslookup n$i.container 127.0.0.11 & done | grep -c '10.9.8.7$'; wait"));

        // A container may have a name server of its own: port 53 is free.
        shell.Run("net-peer serve 53 >/tmp/serve & until grep . /tmp/serve >/dev/null; do sleep 0.1; done");
        Assert.Equal("127.0.0.1\n", shell.Run("net-peer whoami 127.0.0.1 53"));
        Assert.Equal("1 addresses, from 10.9.8.7\n", shell.Run("net-probe lookup other.container"));
        shell.End();
    }
}
