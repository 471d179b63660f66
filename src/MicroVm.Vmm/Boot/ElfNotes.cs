using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace MicroVm.Vmm.Boot;

/// <summary>Reads the notes of an ELF note segment (gABI, "Note Section").</summary>
public static class ElfNotes
{
    /// <summary>Finds Xen's PHYS32_ENTRY note; a malformed list ends the search.</summary>
    public static bool TryFindPvhEntry(ReadOnlySpan<byte> notes, out uint entry)
    {
        entry = 0;
        while (notes.Length >= Unsafe.SizeOf<ElfFormat.NoteHeader>())
        {
            ElfFormat.NoteHeader h = MemoryMarshal.Read<ElfFormat.NoteHeader>(notes);
            notes = notes[Unsafe.SizeOf<ElfFormat.NoteHeader>()..];
            ulong nameRoom = Align4(h.NameSize);
            ulong all = nameRoom + Align4(h.DescriptorSize);
            if (nameRoom + h.DescriptorSize > (ulong)notes.Length)
            {
                return false;
            }

            ReadOnlySpan<byte> name = notes[..(int)h.NameSize];
            ReadOnlySpan<byte> descriptor = notes.Slice((int)nameRoom, (int)h.DescriptorSize);
            if (h.Type == ElfFormat.XEN_ELFNOTE_PHYS32_ENTRY && name.SequenceEqual("Xen\0"u8) && descriptor.Length >= 4)
            {
                // Linux writes a 64-bit value, others a 32-bit one; the entry is below 4 GiB by definition.
                entry = BinaryPrimitives.ReadUInt32LittleEndian(descriptor);
                return true;
            }

            notes = notes[(int)Math.Min(all, (ulong)notes.Length)..];
        }

        return false;
    }

    // Sizes are 32 bits wide, so the sum of two of them cannot wrap in 64.
    private static ulong Align4(uint n) => ((ulong)n + 3) & ~3ul;
}
