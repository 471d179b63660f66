using System.Buffers.Binary;
using System.IO.Hashing;

namespace MicroVm.VmmControl.Snapshots;

/// <summary>
/// Checksum of guest RAM that does not depend on how its file is laid out: XXH3 with 128 bits of each page that is not zero,
/// after its number as 8 bytes. Pages come in rising order.
/// </summary>
public sealed class PageChecksum
{
    /// <summary>Bytes of a page.</summary>
    public const int PageSize = 4096;

    private readonly XxHash128 _hash = new();

    /// <summary>Bytes of the pages so far.</summary>
    public long Bytes { get; private set; }

    /// <summary>The checksum so far, hexadecimal.</summary>
    public string Text => Convert.ToHexStringLower(_hash.GetCurrentHash());

    /// <summary>Takes the next page that is not zero.</summary>
    public void Append(ulong number, ReadOnlySpan<byte> page)
    {
        Span<byte> prefix = stackalloc byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(prefix, number);
        _hash.Append(prefix);
        _hash.Append(page);
        Bytes += page.Length;
    }

    /// <summary>Whether a page is left out.</summary>
    public static bool IsZero(ReadOnlySpan<byte> page) => !page.ContainsAnyExcept((byte)0);
}
