using System.Buffers.Binary;
using System.Text;
using Microsoft.Win32.SafeHandles;
using MicroVm.Linux;

namespace MicroVm.Sandbox.Plan;

/// <summary>Tells whether a program runs by itself: an ELF file without an interpreter (elf(5)), not a script.</summary>
internal static class StaticExecutable
{
    private const int HeaderSize = 64, ProgramHeaderSize = 56, MaxProgramHeaders = 128, MaxPath = 4096;
    private const uint PT_INTERP = 3;

    /// <summary>What the program needs to run: its interpreter; null when it needs none.</summary>
    /// <exception cref="SandboxException">The file cannot be read.</exception>
    internal static string? Needs(string path)
    {
        try
        {
            using SafeFd program = RegularFile.Open(path);
            using SafeFileHandle handle = new(program.Value, ownsHandle: false);
            using FileStream file = new(handle, FileAccess.Read);
            byte[] header = new byte[HeaderSize];
            int length = file.ReadAtLeast(header, HeaderSize, throwOnEndOfStream: false);
            if (header.AsSpan(0, length).StartsWith("#!"u8))
            {
                string line = Encoding.UTF8.GetString(header, 2, length - 2).Split('\n')[0].Trim();
                return line.Split(' ')[0];
            }

            // Class 64, least significant byte first. Anything else is the guest kernel's to refuse.
            return length == HeaderSize && header.AsSpan().StartsWith((ReadOnlySpan<byte>)[0x7f, (byte)'E', (byte)'L', (byte)'F', 2, 1])
                ? Interpreter(file, header)
                : null;
        }
        catch (IOException e)
        {
            throw new SandboxException($"hook {path} cannot be read: {e.Message}", e);
        }
    }

    private static string? Interpreter(FileStream file, ReadOnlySpan<byte> header)
    {
        long at = BinaryPrimitives.ReadInt64LittleEndian(header[32..]);
        int size = BinaryPrimitives.ReadUInt16LittleEndian(header[54..]), count = BinaryPrimitives.ReadUInt16LittleEndian(header[56..]);
        if (at < 0 || size != ProgramHeaderSize || count > MaxProgramHeaders)
        {
            return null;
        }

        byte[] program = new byte[size];
        for (int i = 0; i < count; i++)
        {
            if (at > file.Length - (size * (i + 1L)))
            {
                return null;
            }

            file.Position = at + (size * (long)i);
            file.ReadExactly(program);
            if (BinaryPrimitives.ReadUInt32LittleEndian(program) == PT_INTERP)
            {
                return Text(file, BinaryPrimitives.ReadInt64LittleEndian(program.AsSpan(8)), BinaryPrimitives.ReadInt64LittleEndian(program.AsSpan(32)));
            }
        }

        return null;
    }

    private static string Text(FileStream file, long offset, long size)
    {
        if (offset < 0 || size is < 1 or > MaxPath || offset > file.Length - size)
        {
            return "an interpreter";
        }

        byte[] text = new byte[size];
        file.Position = offset;
        file.ReadExactly(text);
        return Encoding.UTF8.GetString(text).TrimEnd('\0');
    }
}
