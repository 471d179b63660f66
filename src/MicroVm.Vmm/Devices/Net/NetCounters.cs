namespace MicroVm.Vmm.Devices.Net;

/// <summary>
/// What a network device counts; "rx" and "tx" as the guest sees them. Several queue pairs share it, so each adds with
/// <see cref="Interlocked"/>, once a turn for what is common.
/// </summary>
internal sealed class NetCounters
{
    public long ReceivePackets;
    public long ReceiveBytes;
    public long TransmitPackets;
    public long TransmitBytes;
    public long ReceiveFiltered;
    public long ReceiveOversized;
    public long TransmitBadHeader;
    public long TransmitBadSize;
    public long TransmitSpoofed;
    public long TransmitErrors;
    public long ReceiveThrottled;
    public long TransmitThrottled;
    public long ControlRefused;

    /// <summary>Reports all.</summary>
    public void Collect(string name, Action<string, long> add)
    {
        add(name + ".rx.packets", Volatile.Read(ref ReceivePackets));
        add(name + ".rx.bytes", Volatile.Read(ref ReceiveBytes));
        add(name + ".tx.packets", Volatile.Read(ref TransmitPackets));
        add(name + ".tx.bytes", Volatile.Read(ref TransmitBytes));
        add(name + ".rx.filtered", Volatile.Read(ref ReceiveFiltered));
        add(name + ".rx.dropped.size", Volatile.Read(ref ReceiveOversized));
        add(name + ".tx.dropped.header", Volatile.Read(ref TransmitBadHeader));
        add(name + ".tx.dropped.size", Volatile.Read(ref TransmitBadSize));
        add(name + ".tx.dropped.source", Volatile.Read(ref TransmitSpoofed));
        add(name + ".tx.errors", Volatile.Read(ref TransmitErrors));
        add(name + ".rx.throttled", Volatile.Read(ref ReceiveThrottled));
        add(name + ".tx.throttled", Volatile.Read(ref TransmitThrottled));
        add(name + ".ctrl.refused", Volatile.Read(ref ControlRefused));
    }
}
