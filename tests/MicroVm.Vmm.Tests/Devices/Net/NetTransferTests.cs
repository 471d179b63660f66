using System.Runtime.InteropServices;
using FsCheck;
using FsCheck.Fluent;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Vmm.Devices.Net;
using Xunit;

namespace MicroVm.Vmm.Tests.Devices.Net;

public sealed class NetTransferTests
{
    private static readonly byte[] NoHeader = new byte[12];

    [SkippableTheory]
    [InlineData(60, 1)]
    [InlineData(1514, 1)]
    [InlineData(1514, 2)]
    [InlineData(1514, 7)]
    [InlineData(200, 60)]
    [InlineData(15, 27)]
    public void Frames_go_out_whatever_the_segments(int length, int pieces)
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using NetGuest guest = new();
        byte[] frame = NetGuest.Frame(length);
        guest.Send(NoHeader, frame, pieces);
        Assert.Equal(frame, guest.Tap.TryReceive());
        Assert.Equal(1, guest.Counter("tx.packets"));
        Assert.Equal(length, guest.Counter("tx.bytes"));
    }

    [SkippableTheory]
    [InlineData(1536, 1500, 1)]
    [InlineData(512, 1500, 3)]
    [InlineData(100, 9000, 91)]
    [InlineData(12, 1000, 86)]
    public void Frames_come_in_over_as_many_buffers_as_they_need(int bufferLength, int length, int buffers)
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using NetGuest guest = new(bufferLength: bufferLength, buffers: 200, mtu: 9000);
        for (int i = 0; i < 20; i++)
        {
            byte[] frame = NetGuest.Frame(length + 14, source: [2, 9, 9, 9, 9, 9]);
            Assert.True(guest.Tap.Send(frame));
            byte[]? got = guest.Receive();
            Assert.NotNull(got);
            Assert.Equal(buffers, MemoryMarshal.Read<ushort>(got.AsSpan(10)));
            Assert.Equal(frame, got[12..]);
        }

        Assert.Equal(20, guest.Counter("rx.packets"));
    }

    [SkippableFact]
    public void Without_merging_a_frame_longer_than_its_buffer_is_dropped()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        const ulong Without = NetFeature.MrgRxbuf | NetFeature.GuestTso4 | NetFeature.GuestTso6 | NetFeature.GuestUfo | NetFeature.GuestUso4 | NetFeature.GuestUso6;
        using NetGuest guest = new(without: Without, bufferLength: 600);
        Assert.True(guest.Tap.Send(NetGuest.Frame(1000)));
        byte[] small = NetGuest.Frame(588);
        Assert.True(guest.Tap.Send(small));
        byte[]? got = guest.Receive();
        Assert.Equal(small, got?[12..]);
        Assert.Equal(1, MemoryMarshal.Read<ushort>(got.AsSpan(10)));
        Assert.Equal(1, guest.Counter("rx.dropped.size"));
    }

    [SkippableFact]
    public void A_driver_with_few_buffers_gets_what_fits_and_waits_for_no_more()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);

        // 256 descriptors of 100 bytes hold no frame of 64 KiB, which offloads make possible; there are no more to wait for.
        using NetGuest guest = new(bufferLength: 100, buffers: 256);
        byte[] frame = NetGuest.Frame(1400);
        Assert.True(guest.Tap.Send(frame));
        Assert.Equal(frame, guest.Receive()?[12..]);
    }

    [SkippableFact]
    public void A_frame_that_was_read_too_early_waits_for_the_rest_of_its_buffers()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using NetGuest guest = new(bufferLength: 100, buffers: 2);
        byte[] frame = NetGuest.Frame(1400);
        Assert.True(guest.Tap.Send(frame));
        Assert.Null(guest.Receive(milliseconds: 50));
        guest.AddBuffers(20);
        Assert.Equal(frame, guest.Receive()?[12..]);
    }

    [SkippableFact]
    public void Frames_wait_for_buffers_and_keep_their_order()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using NetGuest guest = new(without: NetFeature.GuestOffloads, buffers: 4);
        byte[][] frames = [.. Enumerable.Range(0, 100).Select(i => NetGuest.Frame(100 + i))];
        Array.ForEach(frames, f => Assert.True(guest.Tap.Send(f)));
        Assert.Equal(frames, frames.Select(_ => guest.Receive()?[12..]));
    }

    [SkippableFact]
    public void Segments_from_the_host_come_in_whole()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using NetGuest sender = new();
        using NetGuest receiver = new(buffers: 200);

        // What a guest sends to be cut goes whole to the packet socket; cutting is left to who needs it.
        byte[] frame = TcpFrame.Ipv4(payload: 20000);
        sender.Send(TcpFrame.Header(NetGso.Tcp4, 1448, 34), frame);
        byte[]? passed = sender.Tap.TryReceive();
        Assert.Equal(frame.Length, passed?.Length);
        Assert.Equal(frame[..^20000], passed![..^20000]);
        Assert.Equal(14, sender.Counter("tx.packets"));
    }

    [SkippableFact]
    public void Nothing_is_allocated_for_a_packet()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using NetGuest guest = new();
        byte[] frame = NetGuest.Frame(300);
        for (int i = 0; i < 1000; i++)
        {
            guest.Send(NoHeader, frame);
        }

        // The queue pair's thread is another one, so what counts is the process; the test's own thread is taken off.
        // The runtime allocates, too (its compiler's threads): once or twice, not in each of five rounds.
        long least = long.MaxValue;
        for (int round = 0; round < 5; round++)
        {
            long mine = GC.GetAllocatedBytesForCurrentThread();
            long all = GC.GetTotalAllocatedBytes(precise: true);
            for (int i = 0; i < 1000; i++)
            {
                guest.Send(NoHeader, frame);
            }

            mine = GC.GetAllocatedBytesForCurrentThread() - mine;
            all = GC.GetTotalAllocatedBytes(precise: true) - all;
            least = Math.Min(least, all - mine);
        }

        Assert.InRange(least, 0, 1000);
    }

    [SkippableFact]
    public void Several_pairs_carry_frames_both_ways()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using NetGuest guest = new(queues: 2, without: NetFeature.GuestOffloads);
        Assert.Equal(0, guest.Control(4, 0, 2, 0));
        Assert.Equal(1, guest.Control(4, 0, 3, 0));
        Assert.Equal(1, guest.Control(4, 0, 0, 0));
        Assert.Equal(0, guest.Control(4, 0, 1, 0));
        byte[] frame = NetGuest.Frame(100);
        guest.Send(NoHeader, frame);
        Assert.Equal(frame, guest.Tap.TryReceive());
        Assert.True(guest.Tap.Send(frame));
        Assert.Equal(frame, guest.Receive()?[12..]);
    }

    [SkippableFact]
    public void A_reset_gives_unused_buffers_back_and_the_next_driver_works()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using NetGuest guest = new();
        guest.Send(NoHeader, NetGuest.Frame(60));
        guest.Device.Reset();
        Assert.Equal((0, 0), guest.Driver.Queues[0].DeviceSide!.Position);
        guest.Driver.Activate();
        byte[] frame = NetGuest.Frame(90);
        Assert.True(guest.Tap.Send(frame));
        Assert.Equal(frame, guest.Receive()?[12..]);
    }

    [SkippableFact]
    public void Whatever_the_check_lets_through_the_kernel_takes()
    {
        Skip.If(TapNamespace.Missing is not null, TapNamespace.Missing);
        using NetGuest guest = new();
        Gen<(byte[] Header, byte[] Frame)> any =
            from v6 in Gen.Elements(true, false)
            from flags in Mostly<byte>(1, 0, 2, 7)
            from gso in Mostly<byte>(v6 ? (byte)4 : (byte)1, 0, 3, 5, 0x81, 0x84, 2, 0x80)
            from hdrLen in Gen.Elements<ushort>(0, 12, 54, 66, 1000, 65535)
            from size in Mostly<ushort>(1400, 0, 1, 8, 536, 1448, 9000, 65535)
            from start in Mostly<ushort>(v6 ? (ushort)54 : (ushort)34, 0, 13, 14, 20, 34, 38, 60, 2000, 65535)
            from offset in Mostly<ushort>(16, 0, 6, 17, 1000, 65535)
            from payload in Gen.Choose(0, 4000)
            from cut in Gen.Frequency((4, Gen.Constant(0)), (1, Gen.Choose(0, 80)))
            select (TcpFrame.Header(flags, gso, hdrLen, size, start, offset), Cut(v6 ? TcpFrame.Ipv6(payload) : TcpFrame.Ipv4(payload), cut));
        int good = 0;
        Prop.ForAll(any.ToArbitrary(), f =>
        {
            long before = guest.Counter("tx.packets");
            guest.Send(f.Header, f.Frame);
            good += guest.Counter("tx.packets") > before ? 1 : 0;
            while (guest.Tap.TryReceive() is not null)
            {
            }

            Assert.True(guest.Counter("tx.errors") == 0, $"{Convert.ToHexString(f.Header)} {f.Frame.Length} {Convert.ToHexString(f.Frame.AsSpan(0, Math.Min(80, f.Frame.Length)))}");
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(3000));
        Assert.InRange(good, 100, 2900);
    }

    private static Gen<T> Mostly<T>(T value, params T[] others) => Gen.Frequency((3, Gen.Constant(value)), (1, Gen.Elements(others)));

    private static byte[] Cut(byte[] frame, int to) => to == 0 || to > frame.Length ? frame : frame[..to];
}
