using System.Buffers.Binary;
using System.Runtime.InteropServices;
using FsCheck;
using FsCheck.Fluent;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Vmm.Devices.Net;
using Xunit;

namespace MicroVm.Vmm.Tests.Devices.Net;

public sealed class FrameCheckTests
{
    private const ulong All = ulong.MaxValue;
    private static readonly MacAddress Own = MacAddress.Read(NetGuest.Mac);

    [Fact]
    public void Good_frames_pass_and_their_headers_are_made_true()
    {
        (FrameVerdict verdict, NetHeader header, int packets) = Run(TcpFrame.Header(1, 1, 9999, 1448, 34, 16), TcpFrame.Ipv4(14480));
        Assert.Equal((FrameVerdict.Good, 10), (verdict, packets));
        Assert.Equal(54, header.HeaderLength);
        Assert.Equal(FrameVerdict.Good, Run(TcpFrame.Header(1, 0x84, 0, 1428, 54, 16), TcpFrame.Ipv6(14280)).Verdict);
        Assert.Equal(FrameVerdict.Good, Run(TcpFrame.Header(1, 5, 0, 1472, 34, 6), TcpFrame.Ipv4(14720, 17)).Verdict);
        Assert.Equal(FrameVerdict.Good, Run(TcpFrame.Header(1, 3, 0, 1480, 34, 6), TcpFrame.Ipv4(14720, 17)).Verdict);
        Assert.Equal(FrameVerdict.Good, Run(TcpFrame.Header(1, 0, 0, 0, 34, 16), TcpFrame.Ipv4(100)).Verdict);

        // Unknown flags and a useless hdr_len do not reach the tap.
        (verdict, header, _) = Run(TcpFrame.Header(0xfe, 0, 65535, 77, 65535, 65535), TcpFrame.Ipv4(100));
        Assert.Equal(FrameVerdict.Good, verdict);
        Assert.Equal(default, header);
    }

    [Fact]
    public void Vlan_tags_and_extension_headers_are_skipped()
    {
        byte[] plain = TcpFrame.Ipv4(14480);
        byte[] tagged = [.. plain[..12], 0x81, 0, 0, 5, .. plain[12..]];
        Assert.Equal(FrameVerdict.Good, Run(TcpFrame.Header(1, 1, 0, 1448, 38, 16), tagged).Verdict);
        Assert.Equal(FrameVerdict.BadHeader, Run(TcpFrame.Header(1, 1, 0, 1448, 34, 16), tagged).Verdict);
        byte[] v6 = TcpFrame.Ipv6(14280);
        byte[] extended = [.. v6[..20], 0, .. v6[21..54], 6, 0, 1, 4, 0, 0, 0, 0, .. v6[54..]];
        Assert.Equal(FrameVerdict.Good, Run(TcpFrame.Header(1, 4, 0, 1400, 62, 16), extended).Verdict);
        extended[54] = 44;
        Assert.Equal(FrameVerdict.BadHeader, Run(TcpFrame.Header(1, 4, 0, 1400, 62, 16), extended).Verdict);
    }

    [Theory]
    [InlineData(1, 1, 1448, 34, 17, "wrong place of the checksum")]
    [InlineData(1, 1, 1448, 30, 16, "transport inside the IP header")]
    [InlineData(1, 1, 1448, 60, 16, "transport behind where it is")]
    [InlineData(1, 4, 1448, 34, 16, "IPv6 segments of an IPv4 frame")]
    [InlineData(1, 5, 1448, 34, 6, "UDP segments of a TCP frame")]
    [InlineData(1, 0x85, 1448, 34, 6, "ECN without TCP")]
    [InlineData(1, 2, 1448, 34, 16, "unknown kind")]
    [InlineData(1, 0x80, 1448, 34, 16, "ECN of nothing")]
    [InlineData(1, 1, 0, 34, 16, "segments of nothing")]
    [InlineData(1, 1, 7, 34, 16, "tiny segments")]
    [InlineData(1, 1, 1461, 34, 16, "segments above the MTU")]
    [InlineData(1, 1, 65535, 34, 16, "huge segments")]
    [InlineData(0, 1, 1448, 34, 16, "segments without checksum")]
    [InlineData(1, 0, 0, 33, 16, "checksum of the IP header")]
    [InlineData(1, 0, 0, 34, 65535, "checksum far beyond")]
    [InlineData(1, 0, 0, 65535, 65535, "all beyond")]
    [InlineData(1, 0, 0, 14532, 1, "checksum one byte beyond")]
    public void Headers_that_contradict_their_frame_are_refused(byte flags, byte gso, ushort size, ushort start, ushort offset, string why)
    {
        Assert.True(FrameVerdict.BadHeader == Run(TcpFrame.Header(flags, gso, 0, size, start, offset), TcpFrame.Ipv4(14480)).Verdict, why);
    }

    [Theory]
    [InlineData(14, 0x46, "IP header length")]
    [InlineData(14, 0x65, "IP version")]
    [InlineData(14, 0x44, "short IP header")]
    [InlineData(20, 0x20, "fragment with more to come")]
    [InlineData(21, 0x01, "fragment at an offset")]
    [InlineData(23, 17, "another protocol")]
    [InlineData(46, 0x40, "short TCP header")]
    [InlineData(13, 0x06, "not IP")]
    public void Protocol_headers_that_contradict_the_segments_are_refused(int at, byte value, string why)
    {
        byte[] frame = TcpFrame.Ipv4(14480);
        frame[at] = value;
        Assert.True(FrameVerdict.BadHeader == Run(TcpFrame.Header(1, 1, 0, 1400, 34, 16), frame).Verdict, why);
    }

    [Theory]
    [InlineData(NetFeature.Csum)]
    [InlineData(NetFeature.HostTso4)]
    public void Offloads_that_were_not_negotiated_are_refused(ulong missing) =>
        Assert.Equal(FrameVerdict.BadHeader, Run(TcpFrame.Header(1, 1, 0, 1448, 34, 16), TcpFrame.Ipv4(14480), All & ~missing).Verdict);

    [Fact]
    public void Sizes_and_sources_are_kept_to()
    {
        Assert.Equal(FrameVerdict.BadSize, Run(new byte[12], NetGuest.Frame(1523)).Verdict);
        Assert.Equal(FrameVerdict.Good, Run(new byte[12], NetGuest.Frame(1522)).Verdict);
        Assert.Equal(FrameVerdict.Good, Run(new byte[12], NetGuest.Frame(14)).Verdict);
        Assert.Equal(FrameVerdict.SpoofedSource, Run(new byte[12], NetGuest.Frame(100, source: [2, 0, 0x5e, 0x10, 0, 2])).Verdict);
        Assert.Equal(FrameVerdict.BadHeader, Run(TcpFrame.Header(1, 5, 0, 8, 34, 6), TcpFrame.Ipv4(1033, 17)).Verdict);
    }

    [Fact]
    public void Any_bytes_are_judged_and_what_passes_lies_inside_the_frame()
    {
        Gen<(byte[] Header, byte[] Frame)> any =
            from header in Gen.Choose(0, 255).Select(b => (byte)b).ArrayOf(12)
            from length in Gen.Choose(14, 400)
            from frame in Gen.Choose(0, 255).Select(b => (byte)b).ArrayOf(length)
            from ip in Gen.Elements(0x0800, 0x86dd, 0x8100, 0x88a8)
            from version in Gen.Elements<byte>(0x45, 0x4f, 0x60)
            select (header, Make(frame, ip, version));
        Prop.ForAll(any.ToArbitrary(), f =>
        {
            (FrameVerdict verdict, NetHeader h, int packets) = Run(f.Header, f.Frame);
            if (verdict == FrameVerdict.Good)
            {
                Assert.InRange(packets, 1, f.Frame.Length);
                Assert.InRange(h.HeaderLength, 0, f.Frame.Length);
                Assert.True(h.Flags == 0 || h.CsumStart + h.CsumOffset + 2 <= f.Frame.Length);
                Assert.True(h.GsoType == NetGso.None || (h.Flags == 1 && h.HeaderLength > h.CsumStart && h.CsumStart >= 34));
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(20000));
    }

    private static byte[] Make(byte[] frame, int type, byte version)
    {
        NetGuest.Mac.CopyTo(frame, 6);
        BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(12), (ushort)type);
        if (frame.Length > 14)
        {
            frame[14] = version;
        }

        return frame;
    }

    private static (FrameVerdict Verdict, NetHeader Header, int Packets) Run(byte[] header, byte[] frame, ulong features = All)
    {
        NetHeader h = MemoryMarshal.Read<NetHeader>(header);
        ReadOnlySpan<byte> head = frame.AsSpan(0, FrameCheck.HeadLength(h, (ulong)frame.Length));
        FrameVerdict verdict = FrameCheck.Check(ref h, head, (ulong)frame.Length, new FrameRules(Own, 1500, features), out int packets);
        return (verdict, h, packets);
    }
}
