namespace MicroVm.Ttrpc;

/// <summary>What <see cref="FrameDecoder.Read"/> found.</summary>
public enum FrameResult
{
    /// <summary>The bytes so far do not hold a whole frame.</summary>
    Incomplete,

    /// <summary>A frame.</summary>
    Frame,

    /// <summary>The header of a frame larger than <see cref="FrameHeader.MaxPayload"/>; its payload is skipped as it arrives.</summary>
    TooLarge,
}

/// <summary>
/// Turns a byte stream, however it is split, into frames. Memory is bounded by one frame of the largest size, and grows
/// with the bytes that arrived, not with the length that a header claims.
/// </summary>
public sealed class FrameDecoder
{
    private const int InitialSize = 4096;
    private byte[] _buffer = new byte[InitialSize];
    private int _start;
    private int _end;
    private long _skip;

    /// <summary>Where the next bytes of the stream go; never empty. Call <see cref="Advance"/> after filling it.</summary>
    public Span<byte> Free()
    {
        if (_start == _end)
        {
            _start = _end = 0;
            if (_buffer.Length > 16 * InitialSize)
            {
                _buffer = new byte[InitialSize];
            }
        }

        if (_end == _buffer.Length)
        {
            if (_start > 0)
            {
                Buffer.BlockCopy(_buffer, _start, _buffer, 0, _end - _start);
                (_start, _end) = (0, _end - _start);
            }
            else
            {
                Array.Resize(ref _buffer, Math.Min(_buffer.Length * 2, FrameHeader.Size + FrameHeader.MaxPayload));
            }
        }

        return _buffer.AsSpan(_end);
    }

    /// <summary>Takes in <paramref name="count"/> bytes written to <see cref="Free"/>. All frames must be read before the next call of Free.</summary>
    public void Advance(int count)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, _buffer.Length - _end);
        _end += count;
        int skipped = (int)Math.Min(_skip, _end - _start);
        _start += skipped;
        _skip -= skipped;
    }

    /// <summary>Takes the next frame. <paramref name="payload"/> is valid until the next call of <see cref="Free"/>.</summary>
    public FrameResult Read(out FrameHeader header, out ArraySegment<byte> payload)
    {
        header = default;
        payload = default;
        int available = _end - _start;
        if (available < FrameHeader.Size)
        {
            return FrameResult.Incomplete;
        }

        header = FrameHeader.Read(_buffer.AsSpan(_start));
        if (header.Length > FrameHeader.MaxPayload)
        {
            _start += FrameHeader.Size;
            _skip = header.Length;
            Advance(0);
            return FrameResult.TooLarge;
        }

        int total = FrameHeader.Size + (int)header.Length;
        if (available < total)
        {
            return FrameResult.Incomplete;
        }

        payload = new ArraySegment<byte>(_buffer, _start + FrameHeader.Size, (int)header.Length);
        _start += total;
        return FrameResult.Frame;
    }
}
