using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Boot;

namespace MicroVm.Vmm.Tests.Boot;

/// <summary>Makes small ELF kernels, and <see cref="BootFile"/>s from bytes.</summary>
internal static class ElfBuilder
{
    public const ulong LoadAddress = 0x100_0000;

    /// <summary>One PT_LOAD segment with <paramref name="code"/>, entered at its start; a PVH note when asked for.</summary>
    public static byte[] Kernel(ReadOnlySpan<byte> code, ulong? entry = null, uint? pvhEntry = null, ulong? memorySize = null, ulong load = LoadAddress)
    {
        const int CodeOffset = 0x1000;
        byte[] note = pvhEntry is { } e ? Note(e) : [];
        byte[] file = new byte[CodeOffset + code.Length + note.Length];
        ElfFormat.Header header = new()
        {
            Ident = ElfFormat.Magic,
            Class = 2,
            Data = 1,
            IdentVersion = 1,
            Type = ElfFormat.ET_EXEC,
            Machine = ElfFormat.EM_X86_64,
            Version = 1,
            Entry = entry ?? load,
            ProgramHeaderOffset = 64,
            HeaderSize = 64,
            ProgramHeaderSize = (ushort)Unsafe.SizeOf<ElfFormat.ProgramHeader>(),
            ProgramHeaderCount = 2,
        };
        ElfFormat.ProgramHeader[] programs =
        [
            new()
            {
                Type = ElfFormat.PT_LOAD,
                Offset = CodeOffset,
                PhysicalAddress = load,
                VirtualAddress = 0xffff_ffff_8100_0000,
                FileSize = (ulong)code.Length,
                MemorySize = memorySize ?? (ulong)code.Length,
            },
            new() { Type = ElfFormat.PT_NOTE, Offset = (ulong)(CodeOffset + code.Length), FileSize = (ulong)note.Length, MemorySize = (ulong)note.Length },
        ];
        MemoryMarshal.Write(file, in header);
        MemoryMarshal.AsBytes(programs.AsSpan()).CopyTo(file.AsSpan(64));
        code.CopyTo(file.AsSpan(CodeOffset));
        note.CopyTo(file.AsSpan(CodeOffset + code.Length));
        return file;
    }

    /// <summary>A memory file with <paramref name="content"/>.</summary>
    public static BootFile File(ReadOnlySpan<byte> content, string name = "kernel test") => new(Memfd(content), name);

    /// <summary>A memory file's descriptor.</summary>
    public static unsafe SafeFd Memfd(ReadOnlySpan<byte> content)
    {
        SafeFd fd = SafeFd.From(Libc.memfd_create("test", Libc.MFD_CLOEXEC), "memfd_create");
        fixed (byte* p = content)
        {
            Assert.Equal(content.Length, (int)Libc.write(fd.Value, p, (nuint)content.Length));
        }

        return fd;
    }

    private static byte[] Note(uint entry)
    {
        byte[] note = new byte[24];
        ElfFormat.NoteHeader header = new() { NameSize = 4, DescriptorSize = 8, Type = ElfFormat.XEN_ELFNOTE_PHYS32_ENTRY };
        MemoryMarshal.Write(note, in header);
        "Xen\0"u8.CopyTo(note.AsSpan(12));
        MemoryMarshal.Write(note.AsSpan(16), in entry);
        return note;
    }
}
