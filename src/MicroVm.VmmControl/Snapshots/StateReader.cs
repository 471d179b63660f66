using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;

namespace MicroVm.VmmControl.Snapshots;

/// <summary>Reads the content of a section. Every value that is not there, or not possible, throws <see cref="SnapshotException"/>.</summary>
public sealed class StateReader
{
    private readonly ReadOnlyMemory<byte> _content;
    private int _position;

    /// <summary>Reads from the start of <paramref name="content"/>.</summary>
    /// <param name="section">Name of the section, for messages.</param>
    /// <param name="content">Its bytes.</param>
    public StateReader(string section, ReadOnlyMemory<byte> content)
    {
        Section = section;
        _content = content;
    }

    /// <summary>Name of the section.</summary>
    public string Section { get; }

    private ReadOnlySpan<byte> Rest => _content.Span[_position..];

    /// <summary>Reads a number, or a structure of the kernel's interface.</summary>
    public T Read<T>()
        where T : unmanaged
    {
        Require(Unsafe.SizeOf<T>());
        T value = MemoryMarshal.Read<T>(Rest);
        _position += Unsafe.SizeOf<T>();
        return value;
    }

    /// <summary>Reads a flag.</summary>
    public bool ReadFlag() => Read<byte>() switch
    {
        0 => false,
        1 => true,
        byte other => throw Malformed($"a flag is {other}"),
    };

    /// <summary>Reads a count or length.</summary>
    /// <param name="most">The greatest that is possible.</param>
    /// <param name="what">What is counted, for messages.</param>
    public int ReadCount(int most, string what)
    {
        int count = Read<int>();
        return count >= 0 && count <= most ? count : throw Malformed($"{count} {what}, 0 to {most} are possible");
    }

    /// <summary>Reads bytes that were written with their length.</summary>
    /// <param name="most">The greatest length that is possible.</param>
    public ReadOnlySpan<byte> ReadBytes(int most)
    {
        int length = ReadCount(most, "bytes");
        Require(length);
        ReadOnlySpan<byte> bytes = Rest[..length];
        _position += length;
        return bytes;
    }

    /// <summary>Reads a text.</summary>
    /// <param name="most">The greatest length in bytes that is possible.</param>
    public string ReadText(int most) => Encoding.UTF8.GetString(ReadBytes(most));

    /// <summary>Checks that nothing is left.</summary>
    public void End()
    {
        if (_position != _content.Length)
        {
            throw Malformed($"{_content.Length - _position} bytes are left over");
        }
    }

    /// <summary>What to throw for a value that is not possible.</summary>
    public SnapshotException Malformed(string what) => new($"the section \"{Section}\" is malformed: {what}");

    private void Require(int length)
    {
        if (Rest.Length < length)
        {
            throw Malformed($"it ends at byte {_content.Length}");
        }
    }
}
