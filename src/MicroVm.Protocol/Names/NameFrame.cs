using System.Buffers.Binary;

namespace MicroVm.Protocol.Names;

/// <summary>
/// Head of a name service message between guest and host, little-endian: id (4 bytes), index of the address that was asked (1),
/// transport (1), length of the message that follows (2). An answer has its query's head except for the length.
/// </summary>
/// <param name="Id">Chosen by the guest.</param>
/// <param name="Address">Index in the request that started the relay.</param>
/// <param name="Transport">How the guest's process asked.</param>
/// <param name="Length">0 to 65535; an answer of length 0 says that there is none.</param>
public readonly record struct NameFrame(uint Id, byte Address, NameTransport Transport, ushort Length)
{
    /// <summary>Bytes of the head.</summary>
    public const int HeadLength = 8;

    /// <summary>Most bytes of a frame.</summary>
    public const int MaxLength = HeadLength + ushort.MaxValue;

    /// <summary>Most addresses of a relay.</summary>
    public const int MaxAddresses = 8;

    /// <summary>Port of the name service (RFC 1035).</summary>
    public const ushort Port = 53;

    /// <summary>Reads a head of <see cref="HeadLength"/> bytes.</summary>
    public static NameFrame Read(ReadOnlySpan<byte> head) => new(
        BinaryPrimitives.ReadUInt32LittleEndian(head), head[4], (NameTransport)head[5], BinaryPrimitives.ReadUInt16LittleEndian(head[6..]));

    /// <summary>Writes it as <see cref="HeadLength"/> bytes.</summary>
    public void Write(Span<byte> head)
    {
        BinaryPrimitives.WriteUInt32LittleEndian(head, Id);
        head[4] = Address;
        head[5] = (byte)Transport;
        BinaryPrimitives.WriteUInt16LittleEndian(head[6..], Length);
    }
}
