using System.Net.Sockets;
using FsCheck;
using FsCheck.Fluent;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Vmm.Devices.Vsock;
using Xunit;

namespace MicroVm.Vmm.Tests.Devices;

/// <summary>Guests that lie: each header field, floods, credit, buffers.</summary>
public sealed class VsockHostileTests
{
    [Fact]
    public void Packet_for_no_stream_is_reset_whatever_its_operation_except_reset()
    {
        using VsockGuest guest = new();
        foreach (VsockOperation operation in new[] { VsockOperation.Response, VsockOperation.Shutdown, VsockOperation.Data, VsockOperation.CreditUpdate, VsockOperation.CreditRequest, VsockOperation.Invalid, (VsockOperation)8, (VsockOperation)0xffff })
        {
            guest.Send(operation, 11, 22);
            VsockHeader reset = guest.Expect(VsockOperation.Reset).Header;
            Assert.Equal((22u, 11u, 0u), (reset.SourcePort, reset.DestinationPort, reset.Length));
            guest.ExpectNothing();
        }

        guest.Send(VsockOperation.Reset, 11, 22);
        guest.ExpectNothing();
    }

    [Fact]
    public void Other_types_are_reset_with_their_type_and_do_not_touch_streams()
    {
        using VsockGuest guest = new();
        (Socket client, uint port) = guest.Connect(80);
        foreach (ushort type in new ushort[] { 0, 2, 3, 0xffff })
        {
            VsockHeader header = VsockGuest.Header(VsockOperation.Data, 80, port);
            header.Type = type;
            guest.Send(header);
            Assert.Equal(type, guest.Expect(VsockOperation.Reset).Header.Type);
        }

        client.Send("alive"u8);
        Assert.Equal("alive"u8.ToArray(), guest.Expect(VsockOperation.Data).Payload);
        client.Dispose();
    }

    [Fact]
    public void Other_destinations_are_reset_and_other_sources_dropped()
    {
        using VsockGuest guest = new();
        VsockHeader header = VsockGuest.Header(VsockOperation.Request, 1, 2);
        header.DestinationCid = 1;
        guest.Send(header);
        guest.Turn();
        Assert.Equal(1ul, guest.Inbox.Dequeue().Header.SourceCid);
        header.DestinationCid = 2 + (1ul << 32);
        guest.Send(header);
        guest.Turn();
        Assert.Equal(VsockOperation.Reset, guest.Inbox.Dequeue().Header.Operation);
        header.DestinationCid = 2;
        header.SourceCid = VsockGuest.Cid + 1;
        guest.Send(header);
        guest.ExpectNothing();
        Assert.Equal(1, guest.Counter("vsock.dropped"));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(43)]
    public void Packet_shorter_than_a_header_is_dropped(int length)
    {
        using VsockGuest guest = new();
        guest.Send(VsockGuest.Header(VsockOperation.Request, 1, 2), chainLength: length);
        guest.ExpectNothing();
        Assert.Null(guest.Driver.NeedsReset);
        Assert.Equal(1, guest.Counter("vsock.dropped"));
    }

    [Theory]
    [InlineData(101u)]
    [InlineData(uint.MaxValue)]
    [InlineData(uint.MaxValue - 43)]
    public void Length_beyond_the_buffers_resets_the_stream(uint length)
    {
        using VsockGuest guest = new();
        (Socket client, uint port) = guest.Connect(80);
        VsockHeader header = VsockGuest.Header(VsockOperation.Data, 80, port);
        header.Length = length;
        guest.Send(header, new byte[100]);
        guest.Expect(VsockOperation.Reset);
        Assert.True(VsockGuest.AtEnd(client));
        client.Dispose();
    }

    [Fact]
    public void Length_below_the_buffers_takes_only_so_much()
    {
        using VsockGuest guest = new();
        (Socket client, uint port) = guest.Connect(80);
        VsockHeader header = VsockGuest.Header(VsockOperation.Data, 80, port, length: 3);
        guest.Send(header, "abcdef"u8);
        Assert.Equal("abc"u8.ToArray(), VsockGuest.Read(client));
        client.Dispose();
    }

    [Fact]
    public void Data_beyond_the_credit_resets_the_stream_and_is_not_kept()
    {
        using VsockGuest guest = new();
        (Socket client, uint port) = guest.Connect(80);
        for (int i = 0; guest.Counter("vsock.credit.violations") == 0; i++)
        {
            Assert.True(i < 100);
            guest.Send(VsockOperation.Data, 80, port, new byte[60_000]);
        }

        Assert.True(guest.Counter("vsock.tx.buffered_bytes") <= VsockLimits.Buffer);
        guest.Turn();
        Assert.Contains(guest.Inbox, p => p.Header.Operation == VsockOperation.Reset);
        Assert.Equal(0, guest.Counter("vsock.streams"));
        client.Dispose();
    }

    [Fact]
    public void Consumption_count_ahead_of_what_was_sent_resets_the_stream()
    {
        using VsockGuest guest = new();
        (Socket client, uint port) = guest.Connect(80);
        guest.Send(VsockOperation.CreditUpdate, 80, port, forwardCount: 1);
        guest.Expect(VsockOperation.Reset);
        Assert.True(VsockGuest.AtEnd(client));
        client.Dispose();
    }

    [Fact]
    public void Requests_and_responses_out_of_place_reset_the_stream()
    {
        using VsockGuest guest = new();
        foreach (VsockOperation operation in new[] { VsockOperation.Request, VsockOperation.Response, VsockOperation.Invalid })
        {
            (Socket client, uint port) = guest.Connect(80);
            guest.Send(operation, 80, port);
            guest.Expect(VsockOperation.Reset);
            Assert.True(VsockGuest.AtEnd(client));
            client.Dispose();
        }

        using Socket pending = guest.Client("CONNECT 80\n");
        uint early = guest.Expect(VsockOperation.Request).Header.SourcePort;
        guest.Send(VsockOperation.Data, 80, early, "x"u8);
        guest.Expect(VsockOperation.Reset);
        Assert.True(VsockGuest.AtEnd(pending));
        Assert.Equal(0, guest.Counter("vsock.streams"));
    }

    [Fact]
    public void Data_after_the_guest_ended_its_direction_resets_the_stream()
    {
        using VsockGuest guest = new();
        (Socket client, uint port) = guest.Connect(80);
        guest.Send(VsockOperation.Shutdown, 80, port, flags: 2);
        guest.Send(VsockOperation.Data, 80, port, "x"u8);
        guest.Expect(VsockOperation.Reset);
        client.Dispose();
    }

    [Fact]
    public void Flood_of_requests_is_bounded()
    {
        using VsockGuest guest = new();
        using Socket listener = guest.Listen(9);
        for (uint i = 0; i < 1500; i++)
        {
            guest.Send(VsockOperation.Request, 10_000 + i, 9);
        }

        Assert.Equal(VsockLimits.MaxConnections, guest.Counter("vsock.streams"));
        Assert.Equal(1500 - VsockLimits.MaxConnections, guest.Inbox.Count(p => p.Header.Operation == VsockOperation.Reset));

        // The host's clients wait meanwhile, and are served when there is room.
        using Socket client = guest.Client("CONNECT 1\n");
        guest.Inbox.Clear();
        guest.ExpectNothing();
        guest.Send(VsockOperation.Reset, 10_000, 9);
        guest.Expect(VsockOperation.Request);
    }

    [Fact]
    public void Flood_of_packets_for_no_stream_stops_until_there_are_receive_buffers()
    {
        using VsockGuest guest = new(rxBuffers: 0) { Refill = false };
        int sent = 0;
        while (guest.TrySend(VsockGuest.Header(VsockOperation.Data, (uint)sent, 1)))
        {
            sent++;
            guest.Turn();
            Assert.True(sent < 2000);
        }

        Assert.InRange(sent, VsockLimits.MaxQueuedResets, VsockLimits.MaxQueuedResets + 200);
        guest.Refill = true;
        guest.Post(64);
        guest.Turn();
        Assert.Equal(sent, guest.Inbox.Count);
        Assert.Equal(Enumerable.Range(0, sent).Select(i => (uint)i), guest.Inbox.Select(p => p.Header.DestinationPort));
    }

    [Fact]
    public void Client_in_a_crowd_of_silent_ones_waits_and_none_is_lost()
    {
        using VsockGuest guest = new();
        List<Socket> silent = [.. Enumerable.Range(0, VsockLimits.MaxPending).Select(_ => guest.Client())];
        guest.Turn();
        using Socket client = guest.Client("CONNECT 1\n");
        guest.ExpectNothing();
        Assert.Equal(VsockLimits.MaxPending, guest.Counter("vsock.streams"));
        silent[0].Dispose();
        guest.Expect(VsockOperation.Request);
        silent.ForEach(s => s.Dispose());
    }

    [Fact]
    public void Silent_client_and_silent_guest_are_given_up()
    {
        using VsockGuest guest = new(timeLimit: 1);
        using Socket silent = guest.Client("CONN");
        using Socket asking = guest.Client("CONNECT 1\n");
        guest.Expect(VsockOperation.Request);
        guest.Driver.TurnUntil(() => guest.Counter("vsock.connects.timed_out") == 2, "both time out");
        Assert.True(VsockGuest.AtEnd(silent));
        Assert.True(VsockGuest.AtEnd(asking));
        guest.Expect(VsockOperation.Reset);
        Assert.Equal(0, guest.Counter("vsock.streams"));
    }

    [Fact]
    public void Client_that_waits_for_the_driver_is_never_given_up()
    {
        using VsockGuest guest = new(activate: false, timeLimit: 1);
        using Socket held = guest.Client("CONNECT 1\n");
        using Socket silent = guest.Client();
        guest.Driver.TurnUntil(() => guest.Counter("vsock.connects.timed_out") == 1, "the silent one times out");
        guest.Activate();
        guest.Expect(VsockOperation.Request);
    }

    [Theory]
    [InlineData(4)]
    [InlineData(44)]
    public void Receive_buffer_without_room_breaks_the_queue(uint length)
    {
        using VsockGuest guest = new(rxBuffers: 0);
        guest.Driver.Queues[0].Add(new Segment(guest.Driver.Allocate(64), length, true));
        guest.Driver.Queues[0].Notify();
        using Socket client = guest.Client("CONNECT 1\n");
        guest.Driver.Turn();
        Assert.Contains("5.10.6", guest.Driver.NeedsReset, StringComparison.Ordinal);
    }

    [Fact]
    public void Broken_transmit_queue_asks_for_a_reset_and_the_loop_goes_on()
    {
        using VsockGuest guest = new();
        (Socket client, _) = guest.Connect(80);
        guest.Driver.Queues[1].AvailableRing[1] += 1000;
        guest.Driver.Queues[1].Kick.Signal();
        guest.Driver.Turn();
        Assert.NotNull(guest.Driver.NeedsReset);
        guest.Driver.Reset();
        Assert.True(VsockGuest.AtEnd(client));
        guest.Activate();
        using Socket again = guest.Client("CONNECT 1\n");
        guest.Expect(VsockOperation.Request);
        client.Dispose();
    }

    [Fact]
    public void Random_packets_never_throw_and_never_leave_streams_behind()
    {
        using VsockGuest guest = new();
        using Socket listener = guest.Listen(3);
        Gen<ulong> cids = Gen.Frequency(
            (8, Gen.Constant((ulong)VsockGuest.Cid)), (8, Gen.Constant(2ul)), (1, Gen.Choose(0, int.MaxValue).Select(c => (ulong)c << 20)));
        Gen<uint> numbers = Gen.Frequency(
            (4, Gen.Choose(0, 5).Select(n => (uint)n)), (1, Gen.Choose(0, 400_000).Select(n => (uint)n)), (1, Gen.Choose(0, 64).Select(n => uint.MaxValue - (uint)n)));
        Gen<VsockHeader> headers =
            from source in cids
            from destination in cids
            from ports in Gen.Choose(0, 3).Two()
            from length in numbers
            from type in Gen.Frequency((9, Gen.Constant(1)), (1, Gen.Choose(0, 3)))
            from operation in Gen.Choose(0, 8)
            from flags in Gen.Choose(0, 5)
            from buffer in numbers
            from forward in Gen.Frequency((3, Gen.Constant(0u)), (1, numbers))
            select new VsockHeader
            {
                SourceCid = source,
                DestinationCid = destination,
                SourcePort = (uint)ports.Item1,
                DestinationPort = (uint)ports.Item2,
                Length = length,
                Type = (ushort)type,
                Operation = (VsockOperation)operation,
                Flags = (uint)flags,
                BufferAllocation = buffer,
                ForwardCount = forward,
            };
        byte[] payload = new byte[4096];
        Prop.ForAll(headers.ArrayOf().Resize(20).ToArbitrary(), packets =>
        {
            using Socket client = guest.Client("CONNECT 2\n");
            foreach (VsockHeader packet in packets)
            {
                VsockHeader header = packet;
                if (header.DestinationPort == 2 && guest.Inbox.FirstOrDefault(p => p.Header.Operation == VsockOperation.Request) is { } request)
                {
                    header.DestinationPort = request.Header.SourcePort;
                    header.SourcePort = 2;
                }

                guest.Send(header, payload.AsSpan(0, (int)Math.Min(header.Length, 4096)));
            }

            _ = client.Send(payload, SocketFlags.None, out _);
            guest.Turn();
            guest.Inbox.Clear();
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(300));
        Assert.Null(guest.Driver.NeedsReset);
        guest.Driver.Reset();
        Assert.Equal(0, guest.Counter("vsock.streams"));
    }
}
