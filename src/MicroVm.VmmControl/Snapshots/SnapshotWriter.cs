using System.Buffers.Binary;
using System.IO.Hashing;
using System.Text;

namespace MicroVm.VmmControl.Snapshots;

/// <summary>Collects the sections of a state file and puts them together.</summary>
public sealed class SnapshotWriter
{
    private readonly List<SnapshotSection> _sections = [];

    /// <summary>Starts a state file with its header.</summary>
    public SnapshotWriter(SnapshotHeader header) => Add(SnapshotFormat.HeaderSection, SnapshotHeader.Version, SnapshotHeader.Write(header));

    /// <summary>Appends a section.</summary>
    /// <exception cref="ArgumentException">The name is malformed or given already.</exception>
    public void Add(string name, uint version, ReadOnlyMemory<byte> content)
    {
        if (!SnapshotFile.IsName(name) || _sections.Exists(s => s.Name == name) || _sections.Count == SnapshotFormat.MaxSections)
        {
            throw new ArgumentException($"a snapshot cannot have a section \"{name}\"", nameof(name));
        }

        _sections.Add(new SnapshotSection(name, version, content));
    }

    /// <summary>Appends a section of what <paramref name="write"/> writes.</summary>
    public void Add(string name, uint version, Action<StateWriter> write)
    {
        ArgumentNullException.ThrowIfNull(write);
        StateWriter writer = new();
        write(writer);
        Add(name, version, writer.Content);
    }

    /// <summary>The whole file.</summary>
    /// <exception cref="SnapshotException">It is longer than a state file may be.</exception>
    public byte[] ToArray()
    {
        int table = SnapshotFormat.EntryLength * _sections.Count;
        long length = SnapshotFormat.HeadLength + table + _sections.Sum(s => (long)s.Content.Length);
        if (length > SnapshotFormat.MaxLength)
        {
            throw new SnapshotException($"the state takes {length} bytes, more than the {SnapshotFormat.MaxLength} of a snapshot");
        }

        byte[] file = new byte[length];
        int position = SnapshotFormat.HeadLength + table;
        for (int i = 0; i < _sections.Count; i++)
        {
            SnapshotSection section = _sections[i];
            Span<byte> entry = file.AsSpan(SnapshotFormat.HeadLength + (i * SnapshotFormat.EntryLength), SnapshotFormat.EntryLength);
            Encoding.ASCII.GetBytes(section.Name, entry);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[SnapshotFormat.SectionVersionOffset..], section.Version);
            BinaryPrimitives.WriteUInt64LittleEndian(entry[SnapshotFormat.SectionLengthOffset..], (ulong)section.Content.Length);
            BinaryPrimitives.WriteUInt64LittleEndian(entry[SnapshotFormat.SectionChecksumOffset..], XxHash3.HashToUInt64(section.Content.Span));
            section.Content.Span.CopyTo(file.AsSpan(position));
            position += section.Content.Length;
        }

        Span<byte> head = file.AsSpan(0, SnapshotFormat.HeadLength);
        SnapshotFormat.Magic.CopyTo(head);
        BinaryPrimitives.WriteUInt32LittleEndian(head[8..], SnapshotFormat.Version);
        BinaryPrimitives.WriteUInt32LittleEndian(head[12..], (uint)_sections.Count);
        BinaryPrimitives.WriteUInt64LittleEndian(head[16..], XxHash3.HashToUInt64(file.AsSpan(SnapshotFormat.HeadLength, table)));
        return file;
    }
}
