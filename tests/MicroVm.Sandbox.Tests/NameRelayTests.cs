using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using FsCheck;
using FsCheck.Fluent;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Netlink;
using MicroVm.Protocol.Names;
using MicroVm.Sandbox.Network;

namespace MicroVm.Sandbox.Tests;

/// <summary>The host's side of names that an engine answers on the namespace's loopback interface.</summary>
public sealed class NameRelayTests
{
    private const uint Address = 0x0b00007f; // 127.0.0.11

    [Theory]
    [InlineData("   37: 0B00007F:8A3C 00000000:0000 07 00000000:00000000", Address)]
    [InlineData("   37: 0B00007F:0035 00000000:0000 07", Address)]
    [InlineData("   37: 0100007F:0035 00000000:0000 07", 0x0100007fu)]
    [InlineData("   37: 0100007F:1FBD 00000000:0000 07", null)]
    [InlineData("   37: 00000000:0035 00000000:0000 07", null)]
    [InlineData("   37: 0200000A:0035 00000000:0000 07", null)]
    [InlineData("  sl  local_address rem_address   st tx_queue", null)]
    [InlineData("   37: XX00007F:0035 00000000:0000 07", null)]
    [InlineData("   37: 0B00007F", null)]
    public void ResolversAreUdpSocketsOfTheLoopbackInterface(string line, uint? address) =>
        Assert.Equal(address is null ? [] : [address.Value], LoopbackResolvers.Parse("  sl  local_address\n" + line + "\n"));

    [Fact]
    public void AnythingIsParsed() =>
        Prop.ForAll<string>(table => LoopbackResolvers.Parse(table ?? "").Count <= NameFrame.MaxAddresses).QuickCheckThrowOnFailure();

    [Fact]
    public void FramesArriveWholeHoweverTheyAreCut() => Prop.ForAll<byte[][], byte>(ArriveWhole).QuickCheckThrowOnFailure();

    private static void ArriveWhole(byte[][] messages, byte cut)
    {
        using EventLoop loop = new();
        (SafeFd one, SafeFd other) = UnixSocket.Pair();
        using SafeFd writer = other;
        MicroVm.Linux.Check.Result(Libc.fcntl(one.Value, Libc.F_SETFL, Libc.O_RDWR | Libc.O_NONBLOCK), "fcntl");
        Collector collector = new();
        using NameChannel channel = new(loop, one, collector);
        List<byte> stream = [];
        messages = [.. messages.Select(m => m ?? [])];
        for (int i = 0; i < messages.Length; i++)
        {
            byte[] head = new byte[NameFrame.HeadLength];
            new NameFrame((uint)i, 0, NameTransport.Datagram, (ushort)messages[i].Length).Write(head);
            stream.AddRange([.. head, .. messages[i]]);
        }

        foreach (byte[] part in stream.Chunk(1 + (cut % 16)))
        {
            HostFile.WriteAll(writer, part, "test");
            loop.RunOnce(0);
        }

        writer.Dispose();
        while (!collector.Closed)
        {
            loop.RunOnce(1000);
        }

        Assert.Equal(messages, collector.Messages);
    }

    [SkippableFact]
    public void QuestionsAreAskedInTheNamespaceByDatagramAndByStream()
    {
        Skip.IfNot(Environment.UserName == "root", "NOT ROOT: no network namespace can be made");
        using NetworkNamespace ns = NetworkNamespace.Create();
        _ = ns.Netlink(s => s.TryExecute(NetlinkLinks.Change(1, Libc.IFF_UP, Libc.IFF_UP), out _));
        IPEndPoint at = new(new IPAddress(Address), NameFrame.Port);
        using Socket datagrams = ns.Run(() => Bound(at, SocketType.Dgram, ProtocolType.Udp));
        using Socket listener = ns.Run(() => Bound(at, SocketType.Stream, ProtocolType.Tcp));
        listener.Listen();
        (SafeFd mine, SafeFd its) = UnixSocket.Pair();
        using SafeFd guest = mine;
        Assert.Equal([Address], LoopbackResolvers.Find(ns));
        using NameRelay relay = new(ns, its, [Address]);

        Send(guest, new NameFrame(7, 0, NameTransport.Datagram, 3), "abc"u8);
        EndPoint from = new IPEndPoint(0, 0);
        byte[] question = new byte[16];
        Assert.Equal("abc"u8.ToArray(), question[..datagrams.ReceiveFrom(question, ref from)]);
        datagrams.SendTo("answer"u8, from);
        Assert.Equal((new NameFrame(7, 0, NameTransport.Datagram, 6), "answer"), Receive(guest));

        Send(guest, new NameFrame(8, 0, NameTransport.Stream, 2), "de"u8);
        using (NetworkStream stream = new(listener.Accept(), ownsSocket: true))
        {
            stream.ReadExactly(question, 0, 4);
            Assert.Equal([0, 2, (byte)'d', (byte)'e'], question[..4]);
            byte[] reply = new byte[2 + 40_000];
            BinaryPrimitives.WriteUInt16BigEndian(reply, 40_000);
            stream.Write(reply);
        }

        Assert.Equal(new NameFrame(8, 0, NameTransport.Stream, 40_000), Receive(guest).Frame);

        // Nobody listens: the guest is told that there is no answer. An address that the relay is not for is not asked.
        listener.Dispose();
        Send(guest, new NameFrame(9, 1, NameTransport.Stream, 1), "x"u8);
        Send(guest, new NameFrame(10, 0, NameTransport.Stream, 1), "x"u8);
        Assert.Equal((new NameFrame(10, 0, NameTransport.Stream, 0), ""), Receive(guest));
        Assert.True(relay.Serves([Address]));
        Assert.False(relay.Serves([Address, 1]));
    }

    [SkippableFact]
    public void OneQuestionTooManyEndsTheOldest()
    {
        Skip.IfNot(Environment.UserName == "root", "NOT ROOT: no network namespace can be made");
        using NetworkNamespace ns = NetworkNamespace.Create();
        _ = ns.Netlink(s => s.TryExecute(NetlinkLinks.Change(1, Libc.IFF_UP, Libc.IFF_UP), out _));
        using Socket silent = ns.Run(() => Bound(new IPEndPoint(new IPAddress(Address), NameFrame.Port), SocketType.Dgram, ProtocolType.Udp));
        (SafeFd mine, SafeFd its) = UnixSocket.Pair();
        using SafeFd guest = mine;
        using NameRelay relay = new(ns, its, [Address]);
        const int tooMany = 3;
        for (uint i = 0; i < NameRelay.MaxQueries + tooMany; i++)
        {
            Send(guest, new NameFrame(i, 0, NameTransport.Datagram, 1), "x"u8);
        }

        for (uint i = 0; i < tooMany; i++)
        {
            Assert.Equal((new NameFrame(i, 0, NameTransport.Datagram, 0), ""), Receive(guest));
        }
    }

    private static Socket Bound(IPEndPoint at, SocketType type, ProtocolType protocol)
    {
        Socket socket = new(AddressFamily.InterNetwork, type, protocol);
        socket.Bind(at);
        return socket;
    }

    private static void Send(SafeFd guest, NameFrame frame, ReadOnlySpan<byte> message)
    {
        byte[] bytes = new byte[NameFrame.HeadLength + message.Length];
        frame.Write(bytes);
        message.CopyTo(bytes.AsSpan(NameFrame.HeadLength));
        HostFile.WriteAll(guest, bytes, "test");
    }

    private static (NameFrame Frame, string Message) Receive(SafeFd guest)
    {
        NameFrame frame = NameFrame.Read(Read(guest, NameFrame.HeadLength));
        return (frame, System.Text.Encoding.ASCII.GetString(Read(guest, frame.Length)));
    }

    private static unsafe byte[] Read(SafeFd fd, int length)
    {
        byte[] bytes = new byte[length];
        fixed (byte* p = bytes)
        {
            for (int at = 0; at < length;)
            {
                nint n = Libc.read(fd.Value, p + at, (nuint)(length - at));
                Assert.True(n > 0, "the relay closed its stream");
                at += (int)n;
            }
        }

        return bytes;
    }

    private sealed class Collector : INameChannelOwner
    {
        internal List<byte[]> Messages { get; } = [];

        internal bool Closed { get; private set; }

        public void OnMessage(NameFrame frame, ReadOnlySpan<byte> message)
        {
            Assert.Equal((uint)Messages.Count, frame.Id);
            Messages.Add(message.ToArray());
        }

        public void OnClosed() => Closed = true;
    }
}
