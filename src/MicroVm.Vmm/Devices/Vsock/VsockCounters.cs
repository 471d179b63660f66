namespace MicroVm.Vmm.Devices.Vsock;

/// <summary>What the device counts. Written by the device thread, read by any.</summary>
internal sealed class VsockCounters
{
    public long ReceivePackets;
    public long ReceiveBytes;
    public long TransmitPackets;
    public long TransmitBytes;
    public long BufferedBytes;
    public long HostConnects;
    public long GuestConnects;
    public long Refused;
    public long TimedOut;
    public long ResetsSent;
    public long CreditUpdatesSent;
    public long CreditRequestsSent;
    public long CreditViolations;
    public long ProtocolViolations;
    public long Dropped;

    /// <summary>Reports all, "rx" and "tx" as the guest sees them.</summary>
    public void Collect(string name, Action<string, long> add)
    {
        add(name + ".rx.packets", Volatile.Read(ref ReceivePackets));
        add(name + ".rx.bytes", Volatile.Read(ref ReceiveBytes));
        add(name + ".tx.packets", Volatile.Read(ref TransmitPackets));
        add(name + ".tx.bytes", Volatile.Read(ref TransmitBytes));
        add(name + ".tx.buffered_bytes", Volatile.Read(ref BufferedBytes));
        add(name + ".connects.host", Volatile.Read(ref HostConnects));
        add(name + ".connects.guest", Volatile.Read(ref GuestConnects));
        add(name + ".connects.refused", Volatile.Read(ref Refused));
        add(name + ".connects.timed_out", Volatile.Read(ref TimedOut));
        add(name + ".resets_sent", Volatile.Read(ref ResetsSent));
        add(name + ".credit.updates_sent", Volatile.Read(ref CreditUpdatesSent));
        add(name + ".credit.requests_sent", Volatile.Read(ref CreditRequestsSent));
        add(name + ".credit.violations", Volatile.Read(ref CreditViolations));
        add(name + ".protocol_violations", Volatile.Read(ref ProtocolViolations));
        add(name + ".dropped", Volatile.Read(ref Dropped));
    }
}
