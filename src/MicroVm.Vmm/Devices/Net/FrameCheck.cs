using System.Buffers.Binary;

namespace MicroVm.Vmm.Devices.Net;

/// <summary>What <see cref="FrameCheck"/> thinks of a frame.</summary>
internal enum FrameVerdict
{
    Good,
    BadHeader,
    BadSize,
    SpoofedSource,
}

/// <summary>What frames from the guest must keep to.</summary>
/// <param name="Source">The only source address.</param>
/// <param name="Mtu">The link's MTU; 0 when it is not known.</param>
/// <param name="Features">The negotiated features.</param>
internal sealed record FrameRules(MacAddress Source, int Mtu, ulong Features)
{
    /// <summary>Longest IP packet.</summary>
    public int MaxPacket => Mtu > 0 ? Mtu : ushort.MaxValue;
}

/// <summary>
/// Checks a frame from the guest before the host's kernel sees it. Whatever the header claims is either confirmed by the
/// frame's own protocol headers, replaced, or the frame's end. It works on copies that are also what is sent, so that the
/// guest cannot change them afterwards.
/// </summary>
internal static class FrameCheck
{
    /// <summary>
    /// How many bytes of a frame must be copied for the check: all protocol headers of a frame that is to be cut into
    /// segments; of others the Ethernet header.
    /// </summary>
    public const int MaxHead = 256;

    private const int Ipv4Minimum = 20;
    private const int Ipv6Header = 40;
    private const int TcpMinimum = 20;
    private const int TcpCsumOffset = 16;
    private const int UdpHeader = 8;
    private const int UdpCsumOffset = 6;
    private const int MaxUdpSegments = 128;
    private const byte ProtocolTcp = 6;
    private const byte ProtocolUdp = 17;

    // Less than any TCP sends: sixty thousand segments from one frame would be the host's work for nothing (the kernel
    // has the same bound, TCP_MIN_GSO_SIZE).
    private const int MinSegment = 8;

    /// <summary>How much of the frame <see cref="Check"/> wants to see.</summary>
    public static int HeadLength(in NetHeader header, ulong frameLength) =>
        (int)Math.Min(frameLength, header.GsoType == NetGso.None ? (ulong)Ethernet.HeaderLength : MaxHead);

    /// <summary>Checks a frame and corrects its header.</summary>
    /// <param name="header">The guest's header, copied; afterwards what the tap is given.</param>
    /// <param name="head">The frame's first bytes, copied: <see cref="HeadLength"/> of them.</param>
    /// <param name="frameLength">Length of the whole frame.</param>
    /// <param name="rules">What was negotiated.</param>
    /// <param name="packets">How many packets it makes on a wire.</param>
    public static FrameVerdict Check(ref NetHeader header, ReadOnlySpan<byte> head, ulong frameLength, FrameRules rules, out int packets)
    {
        packets = 1;
        if (frameLength is < Ethernet.HeaderLength or > Ethernet.MaxFrame)
        {
            return FrameVerdict.BadSize;
        }

        if (MacAddress.Read(head[MacAddress.Length..]) != rules.Source)
        {
            return FrameVerdict.SpoofedSource;
        }

        // 5.1.6.2.2: flags that the device does not know are ignored; here they do not reach the tap either. hdr_len is a
        // hint that must not be relied on; the tap gets the truth, or 0, from which it goes by the frame.
        header.Flags &= NetHeader.NeedsCsum;
        header.HeaderLength = 0;
        header.NumBuffers = 0;
        // Behind an IP header at the least: nothing before has a checksum of this kind, and the kernel insists, too.
        bool csum = header.Flags != 0;
        if (csum && ((rules.Features & NetFeature.Csum) == 0
            || header.CsumStart < Ethernet.HeaderLength + Ipv4Minimum
            || (ulong)header.CsumStart + header.CsumOffset + sizeof(ushort) > frameLength))
        {
            return FrameVerdict.BadHeader;
        }

        if (!csum)
        {
            header.CsumStart = 0;
            header.CsumOffset = 0;
        }

        if (header.GsoType == NetGso.None)
        {
            header.GsoSize = 0;
            return frameLength > (ulong)rules.MaxPacket + Ethernet.HeaderLength + (2 * Ethernet.VlanTagLength)
                ? FrameVerdict.BadSize
                : FrameVerdict.Good;
        }

        return csum && CheckSegments(ref header, head, (int)frameLength, rules, out packets)
            ? FrameVerdict.Good
            : FrameVerdict.BadHeader;
    }

    private static bool CheckSegments(ref NetHeader header, ReadOnlySpan<byte> head, int frameLength, FrameRules rules, out int packets)
    {
        packets = 1;
        bool ecn = (header.GsoType & NetGso.Ecn) != 0;
        NetGso type = header.GsoType & ~NetGso.Ecn;
        bool tcp = type is NetGso.Tcp4 or NetGso.Tcp6;
        ulong needed = type switch
        {
            NetGso.Tcp4 => NetFeature.HostTso4,
            NetGso.Tcp6 => NetFeature.HostTso6,
            NetGso.Udp => NetFeature.HostUfo,
            NetGso.UdpL4 => NetFeature.HostUso,
            _ => 0,
        };
        needed |= ecn ? NetFeature.HostEcn : 0;
        if (needed == 0 || (rules.Features & needed) != needed || (ecn && !tcp)
            || header.CsumOffset != (tcp ? TcpCsumOffset : UdpCsumOffset)
            || !TryFindTransport(head, type, tcp ? ProtocolTcp : ProtocolUdp, header.CsumStart, out int network))
        {
            return false;
        }

        int transport = header.CsumStart;
        int length = UdpHeader;
        if (tcp)
        {
            // Its last byte that is looked at must have been copied, too.
            if (transport + TcpMinimum > head.Length)
            {
                return false;
            }

            length = (head[transport + 12] >> 4) * 4;
            if (length < TcpMinimum)
            {
                return false;
            }
        }

        int payload = frameLength - transport - length;
        if (payload < 0 || transport + length > head.Length || header.GsoSize < MinSegment)
        {
            return false;
        }

        packets = Math.Max(1, (payload + header.GsoSize - 1) / header.GsoSize);
        header.HeaderLength = (ushort)(transport + length);
        return type switch
        {
            // UFO's segments are fragments: of any size that a packet may have.
            NetGso.Udp => header.GsoSize <= rules.MaxPacket,
            NetGso.UdpL4 when packets > MaxUdpSegments => false,
            _ => transport - network + length + header.GsoSize <= rules.MaxPacket,
        };
    }

    private static bool TryFindTransport(ReadOnlySpan<byte> head, NetGso type, byte protocol, int transport, out int network)
    {
        network = Ethernet.HeaderLength;
        ushort etherType = BinaryPrimitives.ReadUInt16BigEndian(head[12..]);
        for (int tags = 0; tags < 2 && etherType is Ethernet.TypeVlan or Ethernet.TypeProviderVlan; tags++)
        {
            network += Ethernet.VlanTagLength;
            if (network > head.Length)
            {
                return false;
            }

            etherType = BinaryPrimitives.ReadUInt16BigEndian(head[(network - 2)..]);
        }

        if (etherType == Ethernet.TypeIpv4 && type != NetGso.Tcp6)
        {
            // Not a fragment (except for UFO's own do-not-fragment and identification), and its header ends where the
            // transport's begins.
            return network + Ipv4Minimum <= head.Length
                && head[network] >> 4 == 4
                && (head[network] & 0xf) * 4 >= Ipv4Minimum
                && network + ((head[network] & 0xf) * 4) == transport
                && (BinaryPrimitives.ReadUInt16BigEndian(head[(network + 6)..]) & 0x3fff) == 0
                && head[network + 9] == protocol;
        }

        return etherType == Ethernet.TypeIpv6 && type != NetGso.Tcp4
            && network + Ipv6Header <= head.Length
            && head[network] >> 4 == 6
            && TrySkipExtensions(head, network, protocol, transport);
    }

    private static bool TrySkipExtensions(ReadOnlySpan<byte> head, int network, byte protocol, int transport)
    {
        const byte HopByHop = 0, Routing = 43, Destination = 60;
        byte next = head[network + 6];
        int at = network + Ipv6Header;
        while (next != protocol)
        {
            if (next is not (HopByHop or Routing or Destination) || at + 8 > head.Length)
            {
                return false;
            }

            next = head[at];
            at += (head[at + 1] + 1) * 8;
        }

        return at == transport;
    }
}
