using System.Buffers.Binary;

namespace MicroVm.Vmm.Devices.Net;

/// <summary>
/// Which frames the guest gets (virtio 1.2, 5.1.6.5.1 to 5.1.6.5.3). Immutable: the control queue puts a new one in place of
/// the old one, and the queue pairs' threads see either.
/// </summary>
internal sealed record ReceiveFilter(MacAddress Own)
{
    /// <summary>Most addresses of a kind; with more, all of that kind are let through, as a device may.</summary>
    public const int MaxAddresses = 64;

    /// <summary>Bytes of a frame that decide: both addresses, a tag, and a type.</summary>
    public const int HeadLength = 18;

    /// <summary>Every frame passes.</summary>
    public bool Promiscuous { get; init; }

    /// <summary>Every multicast passes.</summary>
    public bool AllMulticast { get; init; }

    /// <summary>Every unicast passes.</summary>
    public bool AllUnicast { get; init; }

    /// <summary>No multicast passes.</summary>
    public bool NoMulticast { get; init; }

    /// <summary>No unicast passes.</summary>
    public bool NoUnicast { get; init; }

    /// <summary>No broadcast passes.</summary>
    public bool NoBroadcast { get; init; }

    /// <summary>Further unicast addresses.</summary>
    public MacAddress[] Unicast { get; init; } = [];

    /// <summary>Multicast addresses.</summary>
    public MacAddress[] Multicast { get; init; } = [];

    /// <summary>A bit for each VLAN that passes; null when all do.</summary>
    public ulong[]? Vlans { get; init; }

    /// <summary>Whether the guest gets a frame that starts with <paramref name="head"/>, <see cref="HeadLength"/> bytes or the whole frame.</summary>
    public bool Accepts(ReadOnlySpan<byte> head)
    {
        if (Promiscuous)
        {
            return true;
        }

        if (Vlans is { } vlans && head.Length >= HeadLength && BinaryPrimitives.ReadUInt16BigEndian(head[12..]) == Ethernet.TypeVlan)
        {
            int id = BinaryPrimitives.ReadUInt16BigEndian(head[14..]) & 0xfff;
            if ((vlans[id / 64] & (1ul << (id % 64))) == 0)
            {
                return false;
            }
        }

        MacAddress to = MacAddress.Read(head);
        if (!to.IsMulticast)
        {
            return !NoUnicast && (to == Own || AllUnicast || Unicast.AsSpan().Contains(to));
        }

        return to == MacAddress.Broadcast
            ? !NoBroadcast
            : !NoMulticast && (AllMulticast || Multicast.AsSpan().Contains(to));
    }
}
