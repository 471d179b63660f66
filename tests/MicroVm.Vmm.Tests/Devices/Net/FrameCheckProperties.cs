using System.Buffers.Binary;
using System.Runtime.InteropServices;
using FsCheck;
using FsCheck.Fluent;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Vmm.Devices.Net;
using Xunit;

namespace MicroVm.Vmm.Tests.Devices.Net;

/// <summary>
/// Frames that are nearly right, in every field that counts: what passes is, by a second reading, within the frame and what
/// its own headers say.
/// </summary>
public sealed class FrameCheckProperties
{
    private const int Mtu = 1500;
    private const ulong Offloads = NetFeature.Csum | NetFeature.HostTso4 | NetFeature.HostTso6 | NetFeature.HostEcn | NetFeature.HostUfo | NetFeature.HostUso;
    private static readonly MacAddress Own = MacAddress.Read(NetGuest.Mac);

    [Fact]
    public void What_passes_is_within_bounds_and_says_the_truth()
    {
        int good = 0, segmented = 0;
        Prop.ForAll(Nearly().ToArbitrary(), f =>
        {
            (FrameVerdict verdict, NetHeader h, int packets) = Run(f.Header, f.Frame, f.Features);
            if (verdict != FrameVerdict.Good)
            {
                return;
            }

            good++;
            segmented += h.GsoType == NetGso.None ? 0 : 1;
            byte[] frame = f.Frame;
            Assert.InRange(frame.Length, 14, 65535 + 22);
            Assert.Equal(NetGuest.Mac, frame[6..12]);
            Assert.Equal(0, h.NumBuffers);
            Assert.InRange(h.Flags, 0, 1);
            if (h.Flags == 0)
            {
                Assert.Equal(default, h);
            }
            else
            {
                Assert.NotEqual(0ul, f.Features & NetFeature.Csum);
                Assert.InRange(h.CsumStart, 34, frame.Length);
                Assert.InRange(h.CsumStart + h.CsumOffset + 2, 36, frame.Length);
            }

            if (h.GsoType == NetGso.None)
            {
                Assert.Equal((0, 0, 1), (h.HeaderLength, h.GsoSize, packets));
                Assert.InRange(frame.Length, 14, Mtu + 22);
                return;
            }

            // Read again, from the frame's front: tags, IP header, extensions, transport.
            (bool v6, byte protocol, int network, int transport) = Parse(frame);
            bool tcp = h.GsoType is not (NetGso.Udp or NetGso.UdpL4);
            ulong needed = (h.GsoType & ~NetGso.Ecn) switch
            {
                NetGso.Tcp4 => NetFeature.HostTso4,
                NetGso.Tcp6 => NetFeature.HostTso6,
                NetGso.Udp => NetFeature.HostUfo,
                NetGso.UdpL4 => NetFeature.HostUso,
                _ => throw new InvalidOperationException($"{h.GsoType} passed"),
            };
            needed |= (h.GsoType & NetGso.Ecn) != 0 ? NetFeature.HostEcn : 0;
            Assert.Equal(needed, f.Features & needed);
            Assert.Equal(tcp ? 6 : 17, protocol);
            Assert.True(!tcp || v6 == ((h.GsoType & ~NetGso.Ecn) == NetGso.Tcp6));
            Assert.Equal((transport, tcp ? 16 : 6), (h.CsumStart, h.CsumOffset));
            int length = tcp ? (frame[transport + 12] >> 4) * 4 : 8;
            Assert.InRange(length, 8, 60);
            Assert.Equal(transport + length, h.HeaderLength);
            int payload = frame.Length - h.HeaderLength;
            Assert.InRange(payload, 0, frame.Length);
            Assert.InRange(h.GsoSize, 8, Mtu);
            Assert.Equal(Math.Max(1, (payload + h.GsoSize - 1) / h.GsoSize), packets);
            Assert.True(h.GsoType != NetGso.UdpL4 || packets <= 128);
            Assert.True(h.GsoType == NetGso.Udp || h.HeaderLength - network + h.GsoSize <= Mtu, "a segment is longer than the MTU");
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(30000));

        // Else the property says nothing.
        Assert.True(good > 3000 && segmented > 1500, $"{good} passed, {segmented} of them to be cut");
    }

    [Fact]
    public void A_frame_that_is_shorter_than_its_header_is_no_frame()
    {
        for (int length = 0; length < 14; length++)
        {
            Assert.Equal(FrameVerdict.BadSize, Run(new byte[12], new byte[length], Offloads).Verdict);
        }
    }

    private static Gen<(byte[] Header, byte[] Frame, ulong Features)> Nearly() =>
        from v6 in Gen.Elements(true, false)
        from udp in Gen.Frequency((2, Gen.Constant(false)), (1, Gen.Constant(true)))
        from payload in Gen.Frequency((4, Gen.Choose(0, 4000)), (1, Gen.Choose(0, 65000)))
        from tags in Gen.Frequency((5, Gen.Constant(0)), (1, Gen.Choose(1, 3)))
        from extension in Gen.Frequency((4, Gen.Constant(0)), (1, Gen.Choose(1, 30)))
        from size in Mostly<ushort>(1400, 0, 1, 7, 8, 100, 536, 1440, 1448, 1460, 1500, 9000, 65535)
        from flags in Mostly<byte>(1, 0, 3, 0xfe)
        from gso in Mostly(udp ? (byte)5 : v6 ? (byte)4 : (byte)1, (byte)0, (byte)1, (byte)2, (byte)3, (byte)4, (byte)5, (byte)0x80, (byte)0x81, (byte)0x84, (byte)0xff)
        from headerLength in Gen.Choose(0, 65535)
        from start in Gen.Frequency((8, Gen.Constant(0)), (1, Gen.Choose(-40, 40)), (1, Gen.Choose(-65535, 65535)))
        from offset in Gen.Frequency((8, Gen.Constant(udp ? 6 : 16)), (1, Gen.Choose(0, 65535)))
        from missing in Gen.Frequency((4, Gen.Constant(0ul)), (1, Gen.Elements(NetFeature.Csum, NetFeature.HostTso4, NetFeature.HostTso6, NetFeature.HostUso, NetFeature.HostEcn)))
        from spoiltAt in Gen.Choose(0, 140)
        from spoilt in Gen.Frequency((3, Gen.Constant(-1)), (1, Gen.Choose(0, 255)))
        from cut in Gen.Frequency((6, Gen.Constant(int.MaxValue)), (1, Gen.Choose(14, 120)))
        select Make(v6, udp, payload, tags, extension, size, flags, gso, headerLength, start, offset, missing, spoiltAt, spoilt, cut);

    private static (byte[] Header, byte[] Frame, ulong Features) Make(
        bool v6, bool udp, int payload, int tags, int extension, ushort size, byte flags, byte gso, int headerLength, int start, int offset,
        ulong missing, int spoiltAt, int spoilt, int cut)
    {
        byte protocol = udp ? (byte)17 : (byte)6;
        byte[] frame = v6 ? TcpFrame.Ipv6(payload, protocol) : TcpFrame.Ipv4(payload, protocol);
        int transport = v6 ? 54 : 34;
        if (v6 && extension > 0)
        {
            // A destination-options header, of 8 to 240 bytes.
            byte[] header = new byte[extension * 8];
            header[0] = protocol;
            header[1] = (byte)(extension - 1);
            frame[20] = 60;
            frame = [.. frame[..54], .. header, .. frame[54..]];
            transport += header.Length;
        }
        else if (extension > 0)
        {
            // IPv4 options, up to 40 bytes.
            int words = Math.Min(10, extension);
            frame[14] = (byte)(0x45 + words);
            frame = [.. frame[..34], .. new byte[words * 4], .. frame[34..]];
            transport += words * 4;
        }

        for (int i = 0; i < tags; i++)
        {
            frame = [.. frame[..12], 0x81, 0, 0, 5, .. frame[12..]];
            transport += 4;
        }

        if (spoilt >= 0 && spoiltAt < frame.Length)
        {
            frame[spoiltAt] = (byte)spoilt;
        }

        frame = cut < frame.Length ? frame[..cut] : frame;
        ushort csumStart = (ushort)Math.Clamp(transport + start, 0, 65535);
        return (TcpFrame.Header(flags, gso, (ushort)headerLength, size, csumStart, (ushort)offset), frame, Offloads & ~missing);
    }

    private static (bool V6, byte Protocol, int Network, int Transport) Parse(byte[] frame)
    {
        int at = 12;
        while (BinaryPrimitives.ReadUInt16BigEndian(frame.AsSpan(at)) is 0x8100 or 0x88a8)
        {
            at += 4;
        }

        int network = at + 2;
        if (BinaryPrimitives.ReadUInt16BigEndian(frame.AsSpan(at)) == 0x0800)
        {
            Assert.Equal(4, frame[network] >> 4);
            Assert.Equal(0, BinaryPrimitives.ReadUInt16BigEndian(frame.AsSpan(network + 6)) & 0x3fff);
            return (false, frame[network + 9], network, network + ((frame[network] & 15) * 4));
        }

        Assert.Equal(0x86dd, BinaryPrimitives.ReadUInt16BigEndian(frame.AsSpan(at)));
        Assert.Equal(6, frame[network] >> 4);
        byte next = frame[network + 6];
        int transport = network + 40;
        while (next is 0 or 43 or 60)
        {
            next = frame[transport];
            transport += (frame[transport + 1] + 1) * 8;
        }

        return (true, next, network, transport);
    }

    private static Gen<T> Mostly<T>(T value, params T[] others) => Gen.Frequency((3, Gen.Constant(value)), (1, Gen.Elements(others)));

    // The check sees no more than it asked for: reading on would throw.
    private static (FrameVerdict Verdict, NetHeader Header, int Packets) Run(byte[] header, byte[] frame, ulong features)
    {
        NetHeader h = MemoryMarshal.Read<NetHeader>(header);
        byte[] head = frame[..FrameCheck.HeadLength(h, (ulong)frame.Length)];
        FrameVerdict verdict = FrameCheck.Check(ref h, head, (ulong)frame.Length, new FrameRules(Own, Mtu, features), out int packets);
        return (verdict, h, packets);
    }
}
