using System.Net.Sockets;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Vmm.Devices.Vsock;
using Xunit;

namespace MicroVm.Vmm.Tests.Devices;

/// <summary>Streams between real Unix sockets and a guest at packet level: begin, data, half-close, end.</summary>
public sealed class VsockStreamTests
{
    private const uint Both = 3, SendSide = 2, ReceiveSide = 1;

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Client_of_the_host_reaches_a_listening_guest(bool split)
    {
        using VsockGuest guest = new(split: split);
        using Socket client = guest.Client("CONNECT 1024\n");
        VsockHeader request = guest.Expect(VsockOperation.Request).Header;
        Assert.Equal((1024u, VsockLimits.TypeStream, 0u), (request.DestinationPort, request.Type, request.ForwardCount));
        Assert.Equal((uint)VsockLimits.Buffer, request.BufferAllocation);
        Assert.Empty(VsockGuest.Read(client));

        guest.Send(VsockOperation.Response, 1024, request.SourcePort);
        Assert.Equal($"OK {request.SourcePort}\n", System.Text.Encoding.ASCII.GetString(VsockGuest.Read(client)));

        client.Send("hello guest"u8);
        VsockPacket data = guest.Expect(VsockOperation.Data);
        Assert.Equal("hello guest"u8.ToArray(), data.Payload);
        guest.Send(VsockOperation.Data, 1024, request.SourcePort, "hello host"u8);
        Assert.Equal("hello host"u8.ToArray(), VsockGuest.Read(client));
    }

    [Fact]
    public void Refused_client_is_closed_without_an_answer()
    {
        using VsockGuest guest = new();
        using Socket client = guest.Client("CONNECT 7\n");
        uint port = guest.Expect(VsockOperation.Request).Header.SourcePort;
        guest.Send(VsockOperation.Reset, 7, port);
        Assert.True(VsockGuest.AtEnd(client));
        guest.ExpectNothing();
        Assert.Equal(0, guest.Counter("vsock.streams"));
        Assert.Equal(1, guest.Counter("vsock.connects.refused"));
    }

    [Fact]
    public void Client_that_comes_before_the_driver_is_held_and_answered()
    {
        using VsockGuest guest = new(activate: false);
        using Socket gone = guest.Client("CONNECT 5\n");
        using Socket client = guest.Client("CONNECT 5\n");
        guest.Driver.Turn();
        gone.Close();
        guest.Driver.Turn();
        guest.Activate();
        uint port = guest.Expect(VsockOperation.Request).Header.SourcePort;
        guest.ExpectNothing();
        guest.Send(VsockOperation.Response, 5, port);
        Assert.Equal($"OK {port}\n", System.Text.Encoding.ASCII.GetString(VsockGuest.Read(client)));
    }

    [Theory]
    [InlineData("CONNECT\n")]
    [InlineData("CONNECT \n")]
    [InlineData("CONNECT x\n")]
    [InlineData("CONNECT 12x\n")]
    [InlineData("CONNECT -1\n")]
    [InlineData("CONNECT +1\n")]
    [InlineData("CONNECT 4294967295\n")]
    [InlineData("CONNECT 4294967296\n")]
    [InlineData("connect 5\n")]
    [InlineData("GET / HTTP/1.1\r\n")]
    [InlineData("\n")]
    [InlineData("CONNECT 00000000000000000005\n")]
    [InlineData("0123456789012345678901234567890123456789")]
    public void Malformed_connect_line_closes_the_client(string line)
    {
        using VsockGuest guest = new();
        using Socket client = guest.Client(line);
        guest.ExpectNothing();
        Assert.True(VsockGuest.AtEnd(client));
        Assert.Equal(0, guest.Counter("vsock.streams"));
    }

    [Fact]
    public void Connect_line_may_come_in_pieces_with_data_behind_it()
    {
        using VsockGuest guest = new();
        using Socket client = guest.Client("CONN");
        guest.ExpectNothing();
        client.Send("ECT 9\nearly "u8);
        uint port = guest.Expect(VsockOperation.Request).Header.SourcePort;
        client.Send("bird"u8);
        client.Shutdown(SocketShutdown.Send);
        guest.ExpectNothing();
        guest.Send(VsockOperation.Response, 9, port);
        Assert.Equal("early bird"u8.ToArray(), guest.Expect(VsockOperation.Data).Payload);
        Assert.Equal(SendSide, guest.Expect(VsockOperation.Shutdown).Header.Flags);
    }

    [Fact]
    public void Every_live_stream_has_its_own_host_port()
    {
        using VsockGuest guest = new();
        List<Socket> clients = [.. Enumerable.Range(0, 50).Select(i => guest.Client($"CONNECT {i % 3}\n"))];
        guest.Turn();
        uint[] ports = [.. guest.Inbox.Select(p => p.Header.SourcePort)];
        Assert.Equal(50, ports.Distinct().Count());
        clients.ForEach(c => c.Dispose());
    }

    [Fact]
    public void Guest_reaches_a_listener_of_the_host()
    {
        using VsockGuest guest = new();
        using Socket listener = guest.Listen(1024);
        guest.Send(VsockOperation.Request, 5000, 1024);
        VsockHeader response = guest.Expect(VsockOperation.Response).Header;
        Assert.Equal((1024u, 5000u), (response.SourcePort, response.DestinationPort));
        using Socket server = listener.Accept();
        server.Blocking = false;
        guest.Send(VsockOperation.Data, 5000, 1024, "ready"u8);
        Assert.Equal("ready"u8.ToArray(), VsockGuest.Read(server));
        server.Send("fine"u8);
        Assert.Equal("fine"u8.ToArray(), guest.Expect(VsockOperation.Data).Payload);
    }

    [Fact]
    public void Guest_is_refused_where_nobody_listens()
    {
        using VsockGuest guest = new();
        guest.Send(VsockOperation.Request, 5000, 4000000000);
        VsockHeader reset = guest.Expect(VsockOperation.Reset).Header;
        Assert.Equal((4000000000u, 5000u), (reset.SourcePort, reset.DestinationPort));
    }

    [Fact]
    public void Half_close_of_the_client_lets_the_guest_go_on_answering()
    {
        using VsockGuest guest = new();
        (Socket client, uint port) = guest.Connect(80);
        client.Send("question"u8);
        client.Shutdown(SocketShutdown.Send);
        Assert.Equal("question"u8.ToArray(), guest.Expect(VsockOperation.Data).Payload);
        Assert.Equal(SendSide, guest.Expect(VsockOperation.Shutdown).Header.Flags);
        guest.Send(VsockOperation.Data, 80, port, "answer"u8);
        Assert.Equal("answer"u8.ToArray(), VsockGuest.Read(client));
        Assert.False(VsockGuest.AtEnd(client));

        guest.Send(VsockOperation.Shutdown, 80, port, flags: Both);
        guest.Expect(VsockOperation.Reset);
        Assert.True(VsockGuest.AtEnd(client));
        Assert.Equal(0, guest.Counter("vsock.streams"));
        client.Dispose();
    }

    [Fact]
    public void Half_close_of_the_guest_lets_the_client_go_on_sending()
    {
        using VsockGuest guest = new();
        (Socket client, uint port) = guest.Connect(80);
        guest.Send(VsockOperation.Data, 80, port, "last words"u8);
        guest.Send(VsockOperation.Shutdown, 80, port, flags: SendSide);
        Assert.Equal("last words"u8.ToArray(), VsockGuest.Read(client));
        Assert.True(VsockGuest.AtEnd(client));
        client.Send("still here"u8);
        Assert.Equal("still here"u8.ToArray(), guest.Expect(VsockOperation.Data).Payload);

        // Both directions ended: the guest is told all of it, and its reset ends the stream.
        client.Shutdown(SocketShutdown.Send);
        Assert.Equal(Both, guest.Expect(VsockOperation.Shutdown).Header.Flags);
        guest.Send(VsockOperation.Reset, 80, port);
        Assert.Equal(0, guest.Counter("vsock.streams"));
        client.Dispose();
    }

    [Fact]
    public void Guest_that_receives_no_more_ends_the_clients_sending()
    {
        using VsockGuest guest = new();
        (Socket client, uint port) = guest.Connect(80);
        guest.Send(VsockOperation.Shutdown, 80, port, flags: ReceiveSide);
        Assert.Equal(SendSide, guest.Expect(VsockOperation.Shutdown).Header.Flags);
        Assert.Throws<SocketException>(() => client.Send("anyone?"u8));
        guest.Send(VsockOperation.Data, 80, port, "bye"u8);
        Assert.Equal("bye"u8.ToArray(), VsockGuest.Read(client));
        guest.Send(VsockOperation.Shutdown, 80, port, flags: SendSide);
        guest.Expect(VsockOperation.Reset);
        Assert.True(VsockGuest.AtEnd(client));
        client.Dispose();
    }

    [Fact]
    public void Closed_client_shuts_the_guest_down_and_late_data_is_discarded()
    {
        using VsockGuest guest = new();
        (Socket client, uint port) = guest.Connect(80);
        client.Send("all of it"u8);
        client.Close();
        Assert.Equal("all of it"u8.ToArray(), guest.Expect(VsockOperation.Data).Payload);
        Assert.Equal(Both, guest.Expect(VsockOperation.Shutdown).Header.Flags);
        guest.Send(VsockOperation.Data, 80, port, "late"u8);
        guest.ExpectNothing();
        guest.Send(VsockOperation.Shutdown, 80, port, flags: Both);
        guest.Expect(VsockOperation.Reset);
        Assert.Equal(0, guest.Counter("vsock.streams"));
    }

    [Fact]
    public void Client_gone_before_the_guest_answered_is_reset()
    {
        using VsockGuest guest = new();
        Socket client = guest.Client("CONNECT 80\n");
        uint port = guest.Expect(VsockOperation.Request).Header.SourcePort;
        client.Close();
        guest.Expect(VsockOperation.Reset);
        guest.Send(VsockOperation.Response, 80, port);
        guest.Expect(VsockOperation.Reset);
        Assert.Equal(0, guest.Counter("vsock.streams"));
    }

    [Fact]
    public void Transport_reset_closes_streams_and_tells_the_guest()
    {
        using VsockGuest guest = new();
        (Socket client, uint port) = guest.Connect(1);
        guest.Device.ResetTransport(77);
        guest.Turn();
        Assert.True(VsockGuest.AtEnd(client));
        Assert.True(guest.Driver.Queues[2].TryTakeUsed(out _, out uint written));
        Assert.Equal(4u, written);
        byte[] cid = new byte[8];
        guest.Device.ReadConfig(0, cid);
        Assert.Equal(77, cid[0]);
        client.Dispose();
    }

    [Fact]
    public void Driver_reset_closes_streams_and_the_next_driver_starts_afresh()
    {
        using VsockGuest guest = new();
        (Socket client, _) = guest.Connect(1);
        using Socket early = guest.Client("CONN");
        guest.Turn();
        guest.Driver.Reset();
        Assert.True(VsockGuest.AtEnd(client));
        early.Send("ECT 3\n"u8);
        guest.Driver.Turn();
        guest.Activate();
        Assert.Equal(3u, guest.Expect(VsockOperation.Request).Header.DestinationPort);
        client.Dispose();
    }

    [Fact]
    public void Socket_is_for_this_user_only_and_removed_at_the_end()
    {
        string path;
        using (VsockGuest guest = new())
        {
            path = guest.Path;
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(path));
        }

        Assert.False(File.Exists(path));
    }
}
