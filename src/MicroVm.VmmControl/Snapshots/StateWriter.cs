using System.Buffers;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;

namespace MicroVm.VmmControl.Snapshots;

/// <summary>Writes the content of a section: values one after the other, as they lie in memory of a little-endian processor.</summary>
public sealed class StateWriter
{
    private readonly ArrayBufferWriter<byte> _buffer = new();

    /// <summary>What was written so far.</summary>
    public ReadOnlyMemory<byte> Content => _buffer.WrittenMemory;

    /// <summary>Writes a number, or a structure of the kernel's interface.</summary>
    public void Write<T>(in T value)
        where T : unmanaged
    {
        MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).CopyTo(_buffer.GetSpan(Unsafe.SizeOf<T>()));
        _buffer.Advance(Unsafe.SizeOf<T>());
    }

    /// <summary>Writes a flag as one byte.</summary>
    public void WriteFlag(bool value) => Write(value ? (byte)1 : (byte)0);

    /// <summary>Writes a length (4) and that many bytes.</summary>
    public void WriteBytes(ReadOnlySpan<byte> bytes)
    {
        Write(bytes.Length);
        _buffer.Write(bytes);
    }

    /// <summary>Writes a text as bytes of UTF-8.</summary>
    public void WriteText(string text) => WriteBytes(Encoding.UTF8.GetBytes(text));
}
