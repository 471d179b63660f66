using System.Buffers.Binary;

namespace MicroVm.Ttrpc;

/// <summary>What a ttrpc message is (the protocol's message types).</summary>
public enum FrameType : byte
{
    /// <summary>A client's request.</summary>
    Request = 1,

    /// <summary>A server's answer.</summary>
    Response = 2,

    /// <summary>A part of a stream; this implementation has unary calls only.</summary>
    Data = 3,
}

/// <summary>
/// A frame's header: ten bytes, big-endian: payload length (u32), stream id (u32, odd when the client opened it), type,
/// flags (1 remote closed, 2 remote open, 4 no data). Source: containerd/ttrpc PROTOCOL.md.
/// </summary>
/// <param name="Length">Length of the payload that follows, in bytes.</param>
/// <param name="StreamId">The call's number.</param>
/// <param name="Type">What the frame is.</param>
/// <param name="Flags">Stream flags, 0 for unary calls.</param>
public readonly record struct FrameHeader(uint Length, uint StreamId, FrameType Type, byte Flags)
{
    /// <summary>Size of a header in bytes.</summary>
    public const int Size = 10;

    /// <summary>Largest payload in bytes (4 MiB).</summary>
    public const int MaxPayload = 4 << 20;

    /// <summary>Reads a header from the first ten bytes.</summary>
    public static FrameHeader Read(ReadOnlySpan<byte> bytes) => new(
        BinaryPrimitives.ReadUInt32BigEndian(bytes),
        BinaryPrimitives.ReadUInt32BigEndian(bytes[4..]),
        (FrameType)bytes[8],
        bytes[9]);

    /// <summary>Writes the header into the first ten bytes.</summary>
    public void Write(Span<byte> bytes)
    {
        BinaryPrimitives.WriteUInt32BigEndian(bytes, Length);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[4..], StreamId);
        bytes[8] = (byte)Type;
        bytes[9] = Flags;
    }
}
