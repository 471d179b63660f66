using System.Buffers.Binary;
using System.Diagnostics;
using System.Runtime.InteropServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Vmm.Devices.Net;
using Xunit;

namespace MicroVm.Vmm.Tests.Devices.Net;

public sealed class NetControlTests
{
    private static readonly byte[] Group = [0x33, 0x33, 0, 0, 0, 5];
    private static readonly byte[] Other = [2, 1, 1, 1, 1, 1];

    [SkippableFact]
    public void Configuration_tells_address_mtu_and_link()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using NetGuest guest = new(mtu: 9000);
        byte[] config = new byte[16];
        guest.Device.ReadConfig(0, config);
        Assert.Equal([.. NetGuest.Mac, 1, 0, 1, 0, 9000 & 0xff, 9000 >> 8, 0, 0, 0, 0], config);
        guest.Device.SetLink(up: false);
        guest.Device.ReadConfig(6, config.AsSpan(0, 2));
        Assert.Equal((0, 1), (config[0], guest.Driver.ConfigInterrupts));
        guest.Device.ReadConfig(uint.MaxValue, config);
        Assert.Equal(new byte[16], config);
    }

    [SkippableFact]
    public void The_receive_filter_follows_the_driver()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using NetGuest guest = new();
        Assert.True(Passes(guest, NetGuest.Mac));
        Assert.True(Passes(guest, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff]));
        Assert.False(Passes(guest, Other));
        Assert.False(Passes(guest, Group));
        Assert.Equal(0, guest.Control(0, 0, 1));
        Assert.True(Passes(guest, Other));
        Assert.Equal(0, guest.Control(0, 0, 0));
        Assert.Equal(0, guest.Control(1, 0, [1, 0, 0, 0, .. Other, 1, 0, 0, 0, .. Group]));
        Assert.True(Passes(guest, Other));
        Assert.True(Passes(guest, Group));
        Assert.False(Passes(guest, [0x33, 0x33, 0, 0, 0, 6]));
        Assert.Equal(0, guest.Control(0, 1, 1));
        Assert.True(Passes(guest, [0x33, 0x33, 0, 0, 0, 6]));
        Assert.Equal(0, guest.Control(0, 4, 1));
        Assert.False(Passes(guest, Other));
        Assert.Equal(0, guest.Control(0, 4, 0));
        Assert.Equal(0, guest.Control(0, 5, 1));
        Assert.False(Passes(guest, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff]));
        Assert.True(guest.Counter("rx.filtered") >= 4);
    }

    [Fact]
    public void Vlans_pass_when_they_were_added()
    {
        byte[] frame = [.. NetGuest.Mac, .. Other, 0x81, 0, 0xe0, 5, 8, 0];
        ulong[] vlans = new ulong[64];
        ReceiveFilter filter = new(MacAddress.Read(NetGuest.Mac)) { Vlans = vlans };
        Assert.False(filter.Accepts(frame));
        vlans[0] = 1 << 5;
        Assert.True(filter.Accepts(frame));
        frame[12] = 8;
        frame[15] = 6;
        Assert.True(filter.Accepts(frame));
    }

    [SkippableFact]
    public void Commands_that_make_no_sense_are_refused()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using NetGuest guest = new();
        byte[] many = new byte[8 + (65 * 6)];
        many[0] = 65;
        Assert.Equal(0, guest.Control(1, 0, many));
        Assert.True(guest.Device.Filter.AllUnicast);
        byte[][] refused =
        [
            [0, 9, 1], [0, 0], [1, 0, 1, 0, 0, 0], [1, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], [1, 1, .. Other], [1, 1, 2, 0],
            [2, 0, 0, 0x10], [2, 0], [4, 0, 1, 0], [5, 0, 0, 0, 0, 0, 0, 0, 0, 0x80], [5, 0, 1], [77, 0], [3, 0],
        ];
        foreach (byte[] command in refused)
        {
            Assert.True(guest.Control(command[0], command[1], command.AsSpan(2)) == 1, Convert.ToHexString(command));
        }

        Assert.Equal(refused.Length, guest.Counter("ctrl.refused"));
        Assert.Equal(0, guest.Control(1, 1, NetGuest.Mac));
        Assert.Equal(0, guest.Control(2, 0, 0xff, 0x0f));
        Assert.Equal(0, guest.Control(5, 0, 0, 0, 0, 0, 0, 0, 0, 0));
        byte[] offloads = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(offloads, NetFeature.GuestCsum | NetFeature.GuestTso4);
        Assert.Equal(0, guest.Control(5, 0, offloads));
        Assert.Null(guest.Driver.NeedsReset);
    }

    [SkippableFact]
    public void A_command_without_room_for_its_answer_breaks_the_device()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using NetGuest guest = new();
        guest.Driver.Queues[2].Add(new Segment(guest.Driver.Allocate(16), 16, false));
        guest.Driver.Queues[2].Notify();
        guest.Driver.TurnUntil(() => guest.Driver.NeedsReset is not null, "the device complains");
        Assert.Contains("5.1.6.5", guest.Driver.NeedsReset, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void A_readable_receive_buffer_breaks_the_device()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using NetGuest guest = new(buffers: 0);
        guest.Driver.Queues[0].Add(new Segment(guest.Driver.Allocate(2000), 2000, false));
        guest.Driver.Queues[0].Notify();
        guest.Wait(() => guest.Driver.NeedsReset is not null, "the device complains");
        Assert.Contains("5.1.6.3", guest.Driver.NeedsReset, StringComparison.Ordinal);
    }

    [SkippableFact]
    public void Bad_frames_are_dropped_and_counted_each_as_what_it_is()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using NetGuest guest = new();
        guest.Send(new byte[12], NetGuest.Frame(60, source: Other));
        guest.Send(new byte[12], NetGuest.Frame(60).AsSpan(0, 13));
        guest.Send(new byte[5], []);
        guest.Send(new byte[12], NetGuest.Frame(70000));
        guest.Send(TcpFrame.Header(NetGso.Tcp6, 1400, 34), TcpFrame.Ipv4(4000));
        guest.Driver.Queues[1].Add(new Segment(guest.Driver.Allocate(100), 100, true));
        guest.Driver.Queues[1].Notify();
        guest.Wait(() => guest.Driver.Queues[1].TryTakeUsed(out _, out _), "it is used");
        Assert.Null(guest.Tap.TryReceive());
        Assert.Equal((1, 4, 1), (guest.Counter("tx.dropped.source"), guest.Counter("tx.dropped.size"), guest.Counter("tx.dropped.header")));
        Assert.Null(guest.Driver.NeedsReset);
    }

    [SkippableFact]
    public void Only_a_tap_with_headers_is_attached_and_only_once()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using TapNamespace tap = TapNamespace.Create();
        using NetDevice device = new("net0", 1);
        NetInterface settings = new(MacAddress.Read(NetGuest.Mac), 1500, default, default);
        Assert.Equal(0u, device.DeviceId);
        Assert.Equal(0ul, device.DeviceFeatures);
        using SafeFd file = SafeFd.From(Libc.open("/dev/null", Libc.O_RDWR | Libc.O_CLOEXEC, 0), "open");
        Assert.Contains("not a tap", Assert.Throws<ArgumentException>(() => device.Attach([file], settings)).Message, StringComparison.Ordinal);
        Assert.Throws<ArgumentException>(() => device.Attach([], settings));
        Assert.Throws<ArgumentException>(() => device.Attach(tap.Taps, settings with { Mtu = 67 }));
        device.Attach(tap.Taps, settings);
        Assert.Equal(1u, device.DeviceId);
        Assert.Throws<ArgumentException>(() => device.Attach(tap.Taps, settings));
    }

    [Fact]
    public void A_token_bucket_keeps_its_rate_whatever_the_frames()
    {
        long second = Stopwatch.Frequency;
        long now = 0;
        TokenBucket bucket = new(1_000_000, 10_000, now);
        Random random = new(1);
        long sent = 0;
        while (now < 10 * second)
        {
            long delay = bucket.Delay(now);
            if (delay > 0)
            {
                now += delay;
                continue;
            }

            int frame = random.Next(60, 65000);
            bucket.Charge(frame);
            sent += frame;
        }

        Assert.InRange(sent, 10_000_000 - 65_000, 10_000_000 + 10_000 + 65_000);
    }

    [SkippableFact]
    public void A_packet_limit_holds_frames_back_and_lets_them_out_later()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using NetGuest guest = new(transmit: new NetRateLimit(0, 0, 100, 2), receive: new NetRateLimit(100_000, 1000, 0, 0));
        byte[] frame = NetGuest.Frame(800);
        for (int i = 0; i < 6; i++)
        {
            guest.Offer(new byte[12], frame);
            Assert.True(guest.Tap.Send(frame));
        }

        guest.Wait(() => guest.Driver.Queues[1].UsedCount == 6, "all are sent in the end");
        Assert.True(guest.Counter("tx.throttled") > 0);
        for (int i = 0; i < 6; i++)
        {
            Assert.Equal(frame, guest.Receive()?[12..]);
        }

        Assert.True(guest.Counter("rx.throttled") > 0);
    }

    private static bool Passes(NetGuest guest, byte[] to)
    {
        // The second one always passes, unless broadcasts do not: then the own address does.
        byte[] frame = NetGuest.Frame(64, source: [2, 7, 7, 7, 7, 7], destination: to);
        byte[] last = NetGuest.Frame(66, source: [2, 7, 7, 7, 7, 7], destination: guest.Device.Filter.NoUnicast ? [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] : NetGuest.Mac);
        Assert.True(guest.Tap.Send(frame));
        Assert.True(guest.Tap.Send(last));
        byte[]? first = guest.Receive();
        Assert.NotNull(first);
        if (first.Length == frame.Length + 12)
        {
            Assert.NotNull(guest.Receive());
            return true;
        }

        return false;
    }
}
