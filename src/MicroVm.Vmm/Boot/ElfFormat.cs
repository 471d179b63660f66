using System.Runtime.InteropServices;

namespace MicroVm.Vmm.Boot;

/// <summary>The parts of ELF-64 that a kernel image uses (elf.h; System V gABI, chapters 4 and 5).</summary>
public static class ElfFormat
{
#pragma warning disable CS1591 // named as in elf.h
    public const uint Magic = 0x464c_457f;
    public const byte ELFCLASS64 = 2;
    public const byte ELFDATA2LSB = 1;
    public const ushort ET_EXEC = 2;
    public const ushort ET_DYN = 3;
    public const ushort EM_X86_64 = 62;
    public const uint PT_LOAD = 1;
    public const uint PT_NOTE = 4;

    /// <summary>XEN_ELFNOTE_PHYS32_ENTRY (xen/include/public/elfnote.h): 32-bit PVH entry point.</summary>
    public const uint XEN_ELFNOTE_PHYS32_ENTRY = 18;

    /// <summary>Elf64_Ehdr.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct Header
    {
        public uint Ident;
        public byte Class;
        public byte Data;
        public byte IdentVersion;
        public byte OsAbi;
        public ulong Padding;
        public ushort Type;
        public ushort Machine;
        public uint Version;
        public ulong Entry;
        public ulong ProgramHeaderOffset;
        public ulong SectionHeaderOffset;
        public uint Flags;
        public ushort HeaderSize;
        public ushort ProgramHeaderSize;
        public ushort ProgramHeaderCount;
        public ushort SectionHeaderSize;
        public ushort SectionHeaderCount;
        public ushort SectionNames;
    }

    /// <summary>Elf64_Phdr.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct ProgramHeader
    {
        public uint Type;
        public uint Flags;
        public ulong Offset;
        public ulong VirtualAddress;
        public ulong PhysicalAddress;
        public ulong FileSize;
        public ulong MemorySize;
        public ulong Align;
    }

    /// <summary>Elf64_Nhdr.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct NoteHeader
    {
        public uint NameSize;
        public uint DescriptorSize;
        public uint Type;
    }
#pragma warning restore CS1591
}
