using MicroVm.Json;

namespace MicroVm.VmmControl;

/// <summary>A virtio-net device, or a window for one.</summary>
public sealed record NetConfig : IJsonRecord
{
    /// <summary>Most queue pairs, 1 to 8.</summary>
    public int QueuePairs { get; set; } = 1;

    /// <summary>
    /// The interface. Null keeps a window free, in which the guest finds no device until
    /// <see cref="ControlOperation.AttachNet"/>.
    /// </summary>
    public NetAttachment? Interface { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        QueuePairs = members.Number("queuePairs"u8, QueuePairs);
        Interface = members.Object("interface"u8, Interface, static () => new NetAttachment { Mac = null! });
    }
}

/// <summary>The interface behind a virtio-net device.</summary>
public sealed record NetAttachment : IJsonRecord
{
    /// <summary>
    /// Descriptors of the tap (IFF_TAP, IFF_NO_PI, IFF_VNET_HDR), one for each queue pair in use. Empty in an AttachNet
    /// request, with which they come by SCM_RIGHTS.
    /// </summary>
    public IReadOnlyList<FileReference> Taps { get; set; } = [];

    /// <summary>Its address, which the guest cannot change: "02:00:5e:10:00:01".</summary>
    public required string Mac { get; set; }

    /// <summary>Its MTU, 68 to 65535; 0 leaves it to the guest.</summary>
    public int Mtu { get; set; }

    /// <summary>
    /// The MTU may be raised later: the guest is not told it by the device (its driver would refuse a larger one ever after),
    /// but by who configures the interface in it.
    /// </summary>
    public bool MtuMayChange { get; set; }

    /// <summary>The link is down at first, until <see cref="ControlOperation.SetNetLink"/>.</summary>
    public bool LinkDown { get; set; }

    /// <summary>Limits what the guest receives.</summary>
    public RateLimit? Receive { get; set; }

    /// <summary>Limits what the guest sends.</summary>
    public RateLimit? Transmit { get; set; }

    string? IJsonRecord.Missing => Mac is null ? "mac" : null;

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Taps = members.Objects("taps"u8, Taps, static () => new FileReference());
        Mac = members.NonNullText("mac"u8, Mac);
        Mtu = members.Number("mtu"u8, Mtu);
        MtuMayChange = members.Flag("mtuMayChange"u8, MtuMayChange);
        LinkDown = members.Flag("linkDown"u8, LinkDown);
        Receive = members.Object("receive"u8, Receive);
        Transmit = members.Object("transmit"u8, Transmit);
    }
}

/// <summary>A token-bucket rate limit of one direction; 0 is no limit.</summary>
public sealed record RateLimit : IJsonRecord
{
    /// <summary>Bytes of frames a second.</summary>
    public long BytesPerSecond { get; set; }

    /// <summary>Most bytes at once; 0 for a tenth of a second's.</summary>
    public long BurstBytes { get; set; }

    /// <summary>Packets a second, as they are on a wire.</summary>
    public long PacketsPerSecond { get; set; }

    /// <summary>Most packets at once; 0 for a tenth of a second's.</summary>
    public long BurstPackets { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        BytesPerSecond = members.Number("bytesPerSecond"u8, BytesPerSecond);
        BurstBytes = members.Number("burstBytes"u8, BurstBytes);
        PacketsPerSecond = members.Number("packetsPerSecond"u8, PacketsPerSecond);
        BurstPackets = members.Number("burstPackets"u8, BurstPackets);
    }
}
