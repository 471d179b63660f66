namespace MicroVm.Protocol.Names;

/// <summary>How a message of the Domain Name System travels (RFC 1035, section 4.2).</summary>
public enum NameTransport : byte
{
    /// <summary>By UDP, as one datagram.</summary>
    Datagram = 0,

    /// <summary>By TCP, after its length.</summary>
    Stream = 1,
}
