namespace MicroVm.VmmControl.Snapshots;

/// <summary>
/// The state file of a snapshot. All numbers are little-endian. A head of 32 bytes: magic (8), format version (4), number of
/// sections (4), checksum of the table (8), zero (8). The table: for each section its name in ASCII, padded with zeroes (32), its
/// version (4), zero (4), its length (8), its checksum (8), zero (8). Then the sections' bytes, in the table's order, without gaps,
/// up to the end of the file. Checksums are XXH3 with 64 bits. The first section is <see cref="HeaderSection"/>.
/// </summary>
public static class SnapshotFormat
{
    /// <summary>Version of the layout above; a section has a version of its own.</summary>
    public const uint Version = 1;

    /// <summary>Name of the section that holds <see cref="SnapshotHeader"/> as JSON.</summary>
    public const string HeaderSection = "header";

    /// <summary>Longest state file in bytes: 32 vCPUs and 32 devices take less than 2 MiB.</summary>
    public const int MaxLength = 16 << 20;

    /// <summary>Most sections.</summary>
    public const int MaxSections = 256;

    /// <summary>Longest name of a section in bytes.</summary>
    public const int MaxNameLength = 32;

    internal const int HeadLength = 32;
    internal const int EntryLength = 64;
    internal const int SectionVersionOffset = 32;
    internal const int SectionLengthOffset = 40;
    internal const int SectionChecksumOffset = 48;

    /// <summary>The first eight bytes.</summary>
    public static ReadOnlySpan<byte> Magic => "MicroVM\x1a"u8;
}
