using System.Net.Sockets;
using System.Security.Cryptography;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Vmm.Devices.Vsock;
using Xunit;

namespace MicroVm.Vmm.Tests.Devices;

/// <summary>Credit, buffers, fairness and batches of streams.</summary>
public sealed class VsockFlowTests
{
    private const uint Both = 3;

    [Fact]
    public void What_waits_for_a_slow_reader_is_delivered_after_the_guest_closed()
    {
        using VsockGuest guest = new();
        (Socket client, uint port) = guest.Connect(80);
        byte[] sent = Fill(guest, port);
        Assert.True(guest.Counter("vsock.tx.buffered_bytes") > 0);
        guest.Send(VsockOperation.Shutdown, 80, port, flags: Both);
        guest.Send(VsockOperation.Reset, 80, port);
        Assert.Equal(1, guest.Counter("vsock.streams"));
        MemoryStream got = new();
        while (!VsockGuest.AtEnd(client, got))
        {
            guest.Turn();
        }

        Assert.Equal(SHA256.HashData(sent), SHA256.HashData(got.ToArray()));
        Assert.Equal(0, guest.Counter("vsock.streams"));
        client.Dispose();
    }

    [Fact]
    public void Reset_after_shutdown_comes_only_when_everything_was_delivered()
    {
        using VsockGuest guest = new();
        (Socket client, uint port) = guest.Connect(80);
        byte[] sent = Fill(guest, port);
        guest.Send(VsockOperation.Shutdown, 80, port, flags: Both);
        Assert.DoesNotContain(guest.Inbox, p => p.Header.Operation == VsockOperation.Reset);
        guest.Inbox.Clear();
        MemoryStream got = new();
        while (!VsockGuest.AtEnd(client, got))
        {
            guest.Turn();
        }

        Assert.Equal(sent, got.ToArray());
        Assert.Contains(guest.Inbox, p => p.Header.Operation == VsockOperation.Reset);
        client.Dispose();
    }

    [Fact]
    public void Full_socket_stops_the_guest_and_a_reader_frees_it()
    {
        using VsockGuest guest = new();
        (Socket client, uint port) = guest.Connect(80);
        byte[] sent = Fill(guest, port);
        guest.Inbox.Clear();
        byte[] got = VsockGuest.Read(client);
        guest.Turn();
        VsockPacket update = guest.Inbox.Single(p => p.Header.Operation == VsockOperation.CreditUpdate);
        Assert.True(sent.Length - update.Header.ForwardCount < VsockLimits.Buffer / 2);
        List<byte> all = [.. got];
        while (VsockGuest.Read(client) is { Length: > 0 } more)
        {
            all.AddRange(more);
            guest.Turn();
        }

        Assert.Equal(sent, all);
        client.Dispose();
    }

    [Fact]
    public void Host_sends_no_more_than_the_guests_credit_and_asks_once()
    {
        using VsockGuest guest = new();
        (Socket client, uint port) = guest.Connect(80, bufferAllocation: 10_000);
        byte[] data = RandomNumberGenerator.GetBytes(30_000);
        client.Send(data);
        List<byte> got = [];
        guest.Turn();
        Take(10_000, asked: true);
        guest.Send(VsockOperation.CreditUpdate, 80, port, bufferAllocation: 10_000, forwardCount: 0);
        Assert.Empty(guest.Inbox);
        guest.Send(VsockOperation.CreditUpdate, 80, port, bufferAllocation: 10_000, forwardCount: 5_000);
        Take(5_000, asked: true);
        guest.Send(VsockOperation.CreditUpdate, 80, port, bufferAllocation: 100_000, forwardCount: 15_000);
        Take(15_000, asked: false);
        Assert.Equal(data, got);
        client.Dispose();

        void Take(int bytes, bool asked)
        {
            byte[] payload = [.. guest.Inbox.SelectMany(p => p.Payload)];
            Assert.Equal(bytes, payload.Length);
            Assert.Equal(asked ? 1 : 0, guest.Inbox.Count(p => p.Header.Operation == VsockOperation.CreditRequest));
            got.AddRange(payload);
            guest.Inbox.Clear();
        }
    }

    [Fact]
    public void Guest_that_asks_for_credit_is_answered()
    {
        using VsockGuest guest = new();
        (Socket client, uint port) = guest.Connect(80);
        guest.Send(VsockOperation.Data, 80, port, new byte[1000]);
        guest.Send(VsockOperation.CreditRequest, 80, port);
        VsockHeader update = guest.Expect(VsockOperation.CreditUpdate).Header;
        Assert.Equal((1000u, (uint)VsockLimits.Buffer), (update.ForwardCount, update.BufferAllocation));
        client.Dispose();
    }

    [Fact]
    public void Streams_share_receive_buffers_fairly()
    {
        using VsockGuest guest = new(rxBuffers: 0);
        guest.Post(2);
        (Socket a, uint portA) = guest.Connect(1);
        (Socket b, uint portB) = guest.Connect(2);
        guest.Refill = false;
        a.Send(new byte[100_000]);
        b.Send(new byte[100_000]);
        guest.Turn();
        guest.Inbox.Clear();
        guest.Post(20);
        guest.Turn();
        Assert.Equal(20, guest.Inbox.Count);
        Assert.Equal(10, guest.Inbox.Count(p => p.Header.SourcePort == portA));
        Assert.Equal(10, guest.Inbox.Count(p => p.Header.SourcePort == portB));
        a.Dispose();
        b.Dispose();
    }

    [Fact]
    public void A_turn_interrupts_once_for_all_its_packets()
    {
        using VsockGuest guest = new();
        (Socket client, _) = guest.Connect(1);
        client.Send(new byte[100_000]);
        int before = guest.Driver.UsedInterrupts;
        guest.Loop.RunOnce(0);
        Assert.Equal(1, guest.Driver.UsedInterrupts - before);
        guest.Turn();
        Assert.Equal(100_000, guest.Inbox.Sum(p => p.Payload.Length));
        client.Dispose();
    }

    [Fact]
    public void Data_both_ways_allocates_nothing()
    {
        using VsockGuest guest = new();
        (Socket client, uint port) = guest.Connect(1);
        VsockPump pump = new(guest, client, 1, port);
        pump.RoundTrips(200);
        long before = GC.GetAllocatedBytesForCurrentThread();
        pump.RoundTrips(2000);
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
        client.Dispose();
    }

    /// <summary>Sends until the guest's credit is used up and the host's socket is full.</summary>
    private static byte[] Fill(VsockGuest guest, uint port)
    {
        MemoryStream sent = new();
        uint credit = VsockLimits.Buffer;
        uint forwarded = 0;
        while (true)
        {
            uint free = credit - ((uint)sent.Length - forwarded);
            byte[] chunk = RandomNumberGenerator.GetBytes((int)Math.Min(free, 10_007));
            if (chunk.Length == 0)
            {
                return sent.ToArray();
            }

            guest.Send(VsockOperation.Data, 80, port, chunk);
            sent.Write(chunk);
            foreach (VsockPacket p in guest.Inbox)
            {
                forwarded = p.Header.ForwardCount;
            }
        }
    }
}
