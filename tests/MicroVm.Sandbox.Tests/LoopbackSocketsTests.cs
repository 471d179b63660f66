using System.Net;
using System.Net.Sockets;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Netlink;
using MicroVm.Sandbox.Network;

namespace MicroVm.Sandbox.Tests;

/// <summary>What is connected to localhost in a network namespace.</summary>
public sealed class LoopbackSocketsTests
{
    private const int Port = 8080;

    [SkippableFact]
    public void Connections_to_any_port_of_localhost_are_taken()
    {
        using NetworkNamespace ns = Make();
        using LoopbackSockets sockets = LoopbackSockets.Open(ns);
        Assert.Equal(2, sockets.Listeners.Count);
        foreach (int port in (int[])[1, Port, 65535])
        {
            using Socket client = ns.Run(() => Connect(IPAddress.Loopback, port));
            using SafeFd taken = LoopbackSockets.TryAccept(sockets.Listeners[0], out ushort to, out bool six)!;
            Assert.Equal((port, false), (to, six));
            using Socket other = ns.Run(() => Connect(IPAddress.IPv6Loopback, port));
            using SafeFd second = LoopbackSockets.TryAccept(sockets.Listeners[1], out to, out six)!;
            Assert.Equal((port, true), (to, six));
        }

        Assert.Null(LoopbackSockets.TryAccept(sockets.Listeners[0], out _, out _));
    }

    [SkippableFact]
    public void Other_addresses_and_protocols_and_the_relay_itself_find_the_namespaces_sockets()
    {
        using NetworkNamespace ns = Make();
        using LoopbackSockets sockets = LoopbackSockets.Open(ns);
        using Socket local = ns.Run(() => Bound(IPAddress.Loopback, SocketType.Stream));
        using Socket third = ns.Run(() => Bound(IPAddress.Parse("127.0.0.3"), SocketType.Stream));
        using Socket datagrams = ns.Run(() => Bound(IPAddress.Loopback, SocketType.Dgram));
        using Socket own = ns.Run(() => Connect(IPAddress.Loopback, Port, new IPAddress(LoopbackSockets.OwnSource)));
        local.Accept().Dispose();
        using Socket toThird = ns.Run(() => Connect(IPAddress.Parse("127.0.0.3"), Port));
        third.Accept().Dispose();
        Assert.Equal(SocketError.ConnectionRefused, Assert.Throws<SocketException>(() => ns.Run(() => Connect(IPAddress.Parse("127.0.0.3"), Port + 1))).SocketErrorCode);
        using Socket sender = ns.Run(() => new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp));
        sender.SendTo("datagram"u8, new IPEndPoint(IPAddress.Loopback, Port));
        Assert.Equal(8, datagrams.Receive(new byte[16]));
        Assert.Null(LoopbackSockets.TryAccept(sockets.Listeners[0], out _, out _));
    }

    [SkippableFact]
    public void Nothing_is_left_once_they_are_closed()
    {
        using NetworkNamespace ns = Make();
        LoopbackSockets.Open(ns).Dispose();
        Assert.Equal(SocketError.ConnectionRefused, Assert.Throws<SocketException>(() => ns.Run(() => Connect(IPAddress.Loopback, Port))).SocketErrorCode);
    }

    private static NetworkNamespace Make()
    {
        Skip.IfNot(Environment.UserName == "root", "NOT ROOT: no network namespace can be made");
        NetworkNamespace ns = NetworkNamespace.Create();
        _ = ns.Netlink(s => s.TryExecute(NetlinkLinks.Change(1, Libc.IFF_UP, Libc.IFF_UP), out _));
        return ns;
    }

    private static Socket Connect(IPAddress address, int port, IPAddress? from = null)
    {
        Socket socket = new(address.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            if (from is not null)
            {
                socket.Bind(new IPEndPoint(from, 0));
            }

            socket.Connect(address, port);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private static Socket Bound(IPAddress address, SocketType type)
    {
        Socket socket = new(AddressFamily.InterNetwork, type, type == SocketType.Stream ? ProtocolType.Tcp : ProtocolType.Udp);
        socket.Bind(new IPEndPoint(address, Port));
        if (type == SocketType.Stream)
        {
            socket.Listen();
        }

        return socket;
    }
}
