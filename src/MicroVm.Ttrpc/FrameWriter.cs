using System.Text;
using Google.Protobuf;

namespace MicroVm.Ttrpc;

/// <summary>Writes one frame of a size known beforehand: header, then protobuf fields (numbers below 16).</summary>
internal ref struct FrameWriter
{
    private readonly byte[] _frame;
    private int _position = FrameHeader.Size;

    internal FrameWriter(uint streamId, FrameType type, long payloadSize)
    {
        if (payloadSize > FrameHeader.MaxPayload)
        {
            throw new TtrpcException(
                StatusCode.ResourceExhausted,
                $"ttrpc: a message of {payloadSize} bytes is larger than the protocol's limit of {FrameHeader.MaxPayload}");
        }

        _frame = new byte[FrameHeader.Size + payloadSize];
        new FrameHeader((uint)payloadSize, streamId, type, 0).Write(_frame);
    }

    internal readonly byte[] Frame => _frame;

    internal static int StringField(string value) => BytesField(Encoding.UTF8.GetByteCount(value));

    internal static int BytesField(int size) => 1 + CodedOutputStream.ComputeLengthSize(size) + size;

    internal void Varint(ulong value)
    {
        for (; value >= 0x80; value >>= 7)
        {
            _frame[_position++] = (byte)(value | 0x80);
        }

        _frame[_position++] = (byte)value;
    }

    internal void String(int field, string value)
    {
        Varint(((uint)field << 3) | 2);
        Varint((ulong)Encoding.UTF8.GetByteCount(value));
        _position += Encoding.UTF8.GetBytes(value, _frame.AsSpan(_position));
    }

    internal void Message(int field, IMessage message, int size)
    {
        Varint(((uint)field << 3) | 2);
        Varint((ulong)size);
        message.WriteTo(_frame.AsSpan(_position, size));
        _position += size;
    }
}
