using System.Buffers.Binary;

namespace MicroVm.Vmm.Tables.Acpi;

/// <summary>The header that ACPI tables share (ACPI 6.4, 5.2.6).</summary>
public static class AcpiTable
{
    /// <summary>Length of the header in bytes.</summary>
    public const int HeaderLength = 36;

    /// <summary>Makes a table: header, then <paramref name="body"/>, with length and checksum set.</summary>
    /// <param name="signature">Four ASCII bytes.</param>
    /// <param name="revision">The table's revision.</param>
    /// <param name="body">What follows the header.</param>
    public static byte[] Make(ReadOnlySpan<byte> signature, byte revision, ReadOnlySpan<byte> body)
    {
        byte[] table = new byte[HeaderLength + body.Length];
        Span<byte> header = table;
        signature.CopyTo(header);
        BinaryPrimitives.WriteUInt32LittleEndian(header[4..], (uint)table.Length);
        header[8] = revision;
        "MICROV"u8.CopyTo(header[10..]);
        "MICROVM "u8.CopyTo(header[16..]);
        BinaryPrimitives.WriteUInt32LittleEndian(header[24..], 1);
        "MVM "u8.CopyTo(header[28..]);
        BinaryPrimitives.WriteUInt32LittleEndian(header[32..], 1);
        body.CopyTo(header[HeaderLength..]);
        header[9] = Checksum.Of(table);
        return table;
    }
}
