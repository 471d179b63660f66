using MicroVm.Json;

namespace MicroVm.Sandbox.Runtime;

/// <summary>Counters of a network interface, in bytes and packets.</summary>
public sealed record InterfaceCounters(
    string Name, ulong RxBytes, ulong RxPackets, ulong RxErrors, ulong RxDropped, ulong TxBytes, ulong TxPackets, ulong TxErrors, ulong TxDropped) : IJsonRecord
{
    /// <summary>For reading.</summary>
    public InterfaceCounters()
        : this("", 0, 0, 0, 0, 0, 0, 0, 0)
    {
    }

    /// <summary>Its name in the container.</summary>
    public string Name { get; set; } = Name;

    /// <summary>Received: bytes.</summary>
    public ulong RxBytes { get; set; } = RxBytes;

    /// <summary>Received: packets.</summary>
    public ulong RxPackets { get; set; } = RxPackets;

    /// <summary>Received: errors.</summary>
    public ulong RxErrors { get; set; } = RxErrors;

    /// <summary>Received: dropped.</summary>
    public ulong RxDropped { get; set; } = RxDropped;

    /// <summary>Sent: bytes.</summary>
    public ulong TxBytes { get; set; } = TxBytes;

    /// <summary>Sent: packets.</summary>
    public ulong TxPackets { get; set; } = TxPackets;

    /// <summary>Sent: errors.</summary>
    public ulong TxErrors { get; set; } = TxErrors;

    /// <summary>Sent: dropped.</summary>
    public ulong TxDropped { get; set; } = TxDropped;

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Name = members.NonNullText("name"u8, Name);
        RxBytes = members.Number("rxBytes"u8, RxBytes);
        RxPackets = members.Number("rxPackets"u8, RxPackets);
        RxErrors = members.Number("rxErrors"u8, RxErrors);
        RxDropped = members.Number("rxDropped"u8, RxDropped);
        TxBytes = members.Number("txBytes"u8, TxBytes);
        TxPackets = members.Number("txPackets"u8, TxPackets);
        TxErrors = members.Number("txErrors"u8, TxErrors);
        TxDropped = members.Number("txDropped"u8, TxDropped);
    }
}
