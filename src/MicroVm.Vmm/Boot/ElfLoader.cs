using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using MicroVm.Memory;

namespace MicroVm.Vmm.Boot;

/// <summary>
/// Loads an ELF-64 vmlinux: its PT_LOAD segments to their physical addresses. Linux's own e_entry is the physical
/// address of startup_64 and is entered by the 64-bit boot protocol, which spares it the 16 and 32-bit code; a kernel
/// whose e_entry is no loaded physical address is entered by its PVH note.
/// </summary>
public static class ElfLoader
{
    private const int MaxProgramHeaders = 64;
    private const ulong MaxNoteBytes = 64 << 10;

    /// <summary>Loads <paramref name="file"/> into zeroed guest RAM.</summary>
    /// <exception cref="BootException">The file breaks a rule of ELF, is for another machine, or does not fit.</exception>
    public static KernelImage Load(BootFile file, GuestMemory memory)
    {
        ArgumentNullException.ThrowIfNull(file);
        ArgumentNullException.ThrowIfNull(memory);
        ElfFormat.Header header = ReadHeader(file);
        Span<ElfFormat.ProgramHeader> programs = stackalloc ElfFormat.ProgramHeader[header.ProgramHeaderCount];
        file.ReadExactly(header.ProgramHeaderOffset, MemoryMarshal.AsBytes(programs), "the ELF program header table");

        ulong start = ulong.MaxValue;
        ulong end = 0;
        bool entryLoaded = false;
        uint? pvhEntry = null;
        for (int i = 0; i < programs.Length; i++)
        {
            ref readonly ElfFormat.ProgramHeader p = ref programs[i];
            if (p.Type == ElfFormat.PT_NOTE)
            {
                pvhEntry ??= FindPvhEntry(file, p, i);
            }
            else if (p.Type == ElfFormat.PT_LOAD && p.MemorySize > 0)
            {
                CheckSegment(file, memory, p, i);
                file.ReadInto(memory, p.PhysicalAddress, p.Offset, p.FileSize, $"ELF segment {i}");
                start = Math.Min(start, p.PhysicalAddress);
                end = Math.Max(end, p.PhysicalAddress + p.MemorySize);
                entryLoaded |= header.Entry >= p.PhysicalAddress && header.Entry - p.PhysicalAddress < p.FileSize;
            }
        }

        if (end == 0)
        {
            throw new BootException(file.Name, "this ELF file has no PT_LOAD segment; it is not a kernel");
        }

        return entryLoaded
            ? Entered(file, BootProtocol.Linux64, header.Entry, start, end)
            : pvhEntry is { } entry && entry >= start && entry < end
            ? Entered(file, BootProtocol.Pvh, entry, start, end)
            : throw new BootException(
                file.Name, $"the ELF entry point {header.Entry:x} is in no loaded segment, and no PVH note (XEN_ELFNOTE_PHYS32_ENTRY) names one that is");
    }

    private static KernelImage Entered(BootFile file, BootProtocol protocol, ulong entry, ulong start, ulong end) =>
        entry < BootLayout.IdentityMapped
            ? new KernelImage { Protocol = protocol, Entry = entry, Start = start, End = end }
            : throw new BootException(file.Name, $"the kernel's entry point {entry:x} is not below 1 GiB");

    private static ElfFormat.Header ReadHeader(BootFile file)
    {
        ElfFormat.Header h = file.Read<ElfFormat.Header>(0, "the ELF header");
        string? rule =
            h.Ident != ElfFormat.Magic ? "the ELF magic is missing"
            : h.Class != ElfFormat.ELFCLASS64 ? $"ELF class {h.Class} is not 64-bit"
            : h.Data != ElfFormat.ELFDATA2LSB ? $"ELF data encoding {h.Data} is not little-endian"
            : h.Machine != ElfFormat.EM_X86_64 ? $"ELF machine {h.Machine} is not x86-64 (62); the kernel is for another processor"
            : h.Type is not (ElfFormat.ET_EXEC or ElfFormat.ET_DYN) ? $"ELF type {h.Type} is not an executable (an object file or a core dump?)"
            : h.ProgramHeaderSize != Unsafe.SizeOf<ElfFormat.ProgramHeader>() ? $"ELF program headers of {h.ProgramHeaderSize} bytes, not 56"
            : h.ProgramHeaderCount is 0 or > MaxProgramHeaders ? $"{h.ProgramHeaderCount} ELF program headers, not 1 to {MaxProgramHeaders}"
            : null;
        return rule is null ? h : throw new BootException(file.Name, rule);
    }

    private static void CheckSegment(BootFile file, GuestMemory memory, in ElfFormat.ProgramHeader p, int index)
    {
        string? rule =
            p.FileSize > p.MemorySize ? $"has more bytes in the file ({p.FileSize}) than in memory ({p.MemorySize})"
            : p.PhysicalAddress < BootLayout.HighMemory ? $"is to be loaded at {p.PhysicalAddress:x}, below 1 MiB, where the boot data lies"
            : !memory.Contains(p.PhysicalAddress, p.MemorySize)
                ? $"needs {p.MemorySize} bytes at {p.PhysicalAddress:x}, which the guest's {memory.Size >> 20} MiB of memory do not hold; give it more"
            : null;
        if (rule is not null)
        {
            throw new BootException(file.Name, $"ELF segment {index} {rule}");
        }
    }

    private static uint? FindPvhEntry(BootFile file, in ElfFormat.ProgramHeader p, int index)
    {
        if (p.FileSize > MaxNoteBytes)
        {
            throw new BootException(file.Name, $"ELF note segment {index} has {p.FileSize} bytes, more than {MaxNoteBytes}");
        }

        byte[] notes = new byte[p.FileSize];
        file.ReadExactly(p.Offset, notes, $"ELF note segment {index}");
        return ElfNotes.TryFindPvhEntry(notes, out uint entry) ? entry : null;
    }
}
