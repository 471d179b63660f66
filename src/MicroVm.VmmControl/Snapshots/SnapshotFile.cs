using System.Buffers;
using System.Buffers.Binary;
using System.IO.Hashing;
using System.Text;

namespace MicroVm.VmmControl.Snapshots;

/// <summary>
/// A state file, read and checked: layout, names, lengths and checksums. What the sections mean is their readers' business, who
/// trust no value in them either: a checksum protects from accidents, not from people.
/// </summary>
public sealed class SnapshotFile
{
    private static readonly SearchValues<char> NameCharacters = SearchValues.Create("abcdefghijklmnopqrstuvwxyz0123456789.-");
    private readonly Dictionary<string, SnapshotSection> _byName = [];

    private SnapshotFile(SnapshotHeader header, List<SnapshotSection> sections)
    {
        Header = header;
        Sections = sections;
        sections.ForEach(s => _byName.Add(s.Name, s));
    }

    /// <summary>What the snapshot is of.</summary>
    public SnapshotHeader Header { get; }

    /// <summary>All sections, the header first.</summary>
    public IReadOnlyList<SnapshotSection> Sections { get; }

    /// <summary>Reads a state file.</summary>
    /// <exception cref="SnapshotException">It is none, is damaged, or is of another version.</exception>
    public static SnapshotFile Parse(ReadOnlyMemory<byte> file)
    {
        List<SnapshotSection> sections = ReadSections(file);
        SnapshotSection first = sections[0];
        if (first.Name != SnapshotFormat.HeaderSection)
        {
            throw new SnapshotException($"the first section is \"{first.Name}\", not \"{SnapshotFormat.HeaderSection}\"");
        }

        return new SnapshotFile(SnapshotHeader.Read(first), sections);
    }

    /// <summary>A section's content, to be read from its start.</summary>
    /// <param name="name">The section.</param>
    /// <param name="version">The version that the caller understands.</param>
    /// <exception cref="SnapshotException">There is no such section, or it has another version.</exception>
    public StateReader Open(string name, uint version)
    {
        if (!_byName.TryGetValue(name, out SnapshotSection? section))
        {
            throw new SnapshotException($"the section \"{name}\" is missing");
        }

        return section.Version == version
            ? new StateReader(name, section.Content)
            : throw new SnapshotException($"the section \"{name}\" has version {section.Version}, this program understands {version}: make the snapshot anew");
    }

    /// <summary>Whether there is a section with this name.</summary>
    public bool Has(string name) => _byName.ContainsKey(name);

    /// <summary>Whether a section can be called so.</summary>
    internal static bool IsName(ReadOnlySpan<char> name) =>
        name.Length is > 0 and <= SnapshotFormat.MaxNameLength && !name.ContainsAnyExcept(NameCharacters);

    private static List<SnapshotSection> ReadSections(ReadOnlyMemory<byte> file)
    {
        ReadOnlySpan<byte> bytes = file.Span;
        if (bytes.Length > SnapshotFormat.MaxLength)
        {
            throw new SnapshotException($"the file has {bytes.Length} bytes, a snapshot's state has at most {SnapshotFormat.MaxLength}");
        }

        if (bytes.Length < SnapshotFormat.HeadLength || !bytes.StartsWith(SnapshotFormat.Magic))
        {
            throw new SnapshotException("the file is not the state of a snapshot");
        }

        uint version = BinaryPrimitives.ReadUInt32LittleEndian(bytes[8..]);
        if (version != SnapshotFormat.Version)
        {
            throw new SnapshotException($"the file has format version {version}, this program understands {SnapshotFormat.Version}: make the snapshot anew");
        }

        if (BinaryPrimitives.ReadUInt64LittleEndian(bytes[24..]) != 0)
        {
            throw new SnapshotException("the file is damaged: its head is malformed");
        }

        uint count = BinaryPrimitives.ReadUInt32LittleEndian(bytes[12..]);
        if (count is 0 or > SnapshotFormat.MaxSections || bytes.Length < SnapshotFormat.HeadLength + ((int)count * SnapshotFormat.EntryLength))
        {
            throw new SnapshotException($"the file is damaged: its {bytes.Length} bytes do not hold a table of {count} sections");
        }

        ReadOnlySpan<byte> table = bytes.Slice(SnapshotFormat.HeadLength, (int)count * SnapshotFormat.EntryLength);
        if (XxHash3.HashToUInt64(table) != BinaryPrimitives.ReadUInt64LittleEndian(bytes[16..]))
        {
            throw new SnapshotException("the file is damaged: the checksum of its table is wrong");
        }

        List<SnapshotSection> sections = new((int)count);
        int position = SnapshotFormat.HeadLength + table.Length;
        for (; !table.IsEmpty; table = table[SnapshotFormat.EntryLength..])
        {
            sections.Add(ReadSection(file, table[..SnapshotFormat.EntryLength], ref position, sections));
        }

        return position == bytes.Length
            ? sections
            : throw new SnapshotException($"the file is damaged: its sections end at byte {position} of {bytes.Length}");
    }

    private static SnapshotSection ReadSection(ReadOnlyMemory<byte> file, ReadOnlySpan<byte> entry, ref int position, List<SnapshotSection> before)
    {
        string name = Encoding.ASCII.GetString(entry[..SnapshotFormat.MaxNameLength].TrimEnd((byte)0));
        if (!IsName(name) || before.Exists(s => s.Name == name))
        {
            throw new SnapshotException($"the file is damaged: the name of section {before.Count} is malformed, or that of another");
        }

        ulong length = BinaryPrimitives.ReadUInt64LittleEndian(entry[SnapshotFormat.SectionLengthOffset..]);
        if (length > (ulong)(file.Length - position))
        {
            throw new SnapshotException($"the file is damaged: the section \"{name}\" has {length} bytes, {file.Length - position} are left");
        }

        ReadOnlyMemory<byte> content = file.Slice(position, (int)length);
        if (XxHash3.HashToUInt64(content.Span) != BinaryPrimitives.ReadUInt64LittleEndian(entry[SnapshotFormat.SectionChecksumOffset..]))
        {
            throw new SnapshotException($"the file is damaged: the checksum of the section \"{name}\" is wrong");
        }

        position += (int)length;
        return new SnapshotSection(name, BinaryPrimitives.ReadUInt32LittleEndian(entry[SnapshotFormat.SectionVersionOffset..]), content);
    }
}
