using System.Buffers.Binary;

namespace MicroVm.VmmControl.Snapshots;

/// <summary>
/// Pages of guest RAM by their numbers in the memory file: those that every start from it writes. In a file: 8 bytes of magic, the number of
/// ranges, and for each its first page and how many there are, 32 bits each, little-endian.
/// </summary>
public sealed class PageSet
{
    /// <summary>The most ranges that a set has. Of a larger one the first are kept.</summary>
    public const int MaxRanges = 8192;

    /// <summary>The longest file.</summary>
    public const int MaxLength = HeaderLength + (MaxRanges * RangeLength);

    private const int HeaderLength = 12;
    private const int RangeLength = 8;

    private PageSet(IReadOnlyList<(uint First, uint Count)> ranges) => Ranges = ranges;

    /// <summary>The ranges by rising numbers; none is empty or overlaps another.</summary>
    public IReadOnlyList<(uint First, uint Count)> Ranges { get; }

    private static ReadOnlySpan<byte> Magic => "MVPAGES1"u8;

    /// <summary>The set of some pages.</summary>
    /// <param name="pages">Their numbers, rising.</param>
    public static PageSet Of(IEnumerable<uint> pages)
    {
        ArgumentNullException.ThrowIfNull(pages);
        List<(uint First, uint Count)> ranges = [];
        foreach (uint page in pages)
        {
            if (ranges.Count > 0 && ranges[^1].First + ranges[^1].Count == page)
            {
                ranges[^1] = (ranges[^1].First, ranges[^1].Count + 1);
            }
            else if (ranges.Count == MaxRanges)
            {
                break;
            }
            else
            {
                ranges.Add((page, 1));
            }
        }

        return new PageSet(ranges);
    }

    /// <summary>Reads a file.</summary>
    /// <exception cref="SnapshotException">It is none, or damaged.</exception>
    public static PageSet Parse(ReadOnlySpan<byte> file)
    {
        if (file.Length < HeaderLength || !file[..Magic.Length].SequenceEqual(Magic))
        {
            throw new SnapshotException("the file of pages does not begin as one");
        }

        uint count = BinaryPrimitives.ReadUInt32LittleEndian(file[Magic.Length..]);
        if (count > MaxRanges || file.Length != HeaderLength + ((int)count * RangeLength))
        {
            throw new SnapshotException($"the file of pages has {file.Length} bytes for {count} ranges");
        }

        (uint First, uint Count)[] ranges = new (uint, uint)[count];
        ulong end = 0;
        for (int i = 0; i < ranges.Length; i++)
        {
            ReadOnlySpan<byte> range = file.Slice(HeaderLength + (i * RangeLength), RangeLength);
            (uint first, uint pages) = (BinaryPrimitives.ReadUInt32LittleEndian(range), BinaryPrimitives.ReadUInt32LittleEndian(range[4..]));
            if (first < end || pages == 0 || pages > uint.MaxValue - first)
            {
                throw new SnapshotException($"the file of pages is damaged: range {i} has {pages} pages from {first} on, and the one before ends at {end}");
            }

            end = (ulong)first + pages;
            ranges[i] = (first, pages);
        }

        return new PageSet(ranges);
    }

    /// <summary>The file.</summary>
    public byte[] ToArray()
    {
        byte[] file = new byte[HeaderLength + (Ranges.Count * RangeLength)];
        Magic.CopyTo(file);
        BinaryPrimitives.WriteInt32LittleEndian(file.AsSpan(Magic.Length), Ranges.Count);
        for (int i = 0; i < Ranges.Count; i++)
        {
            Span<byte> range = file.AsSpan(HeaderLength + (i * RangeLength), RangeLength);
            BinaryPrimitives.WriteUInt32LittleEndian(range, Ranges[i].First);
            BinaryPrimitives.WriteUInt32LittleEndian(range[4..], Ranges[i].Count);
        }

        return file;
    }
}
