using System.Buffers.Binary;

namespace MicroVm.Vmm.Boot;

/// <summary>
/// Fills hvm_start_info, version 1, with its module list and memory map (xen/include/public/arch-x86/hvm/start_info.h).
/// </summary>
public static class PvhStartInfo
{
    private const uint Magic = 0x336e_c578;
    private const int ModuleOffset = 0x38;
    private const int MapOffset = 0x58;
    private const int MapEntrySize = 24;

    /// <summary>Fills <paramref name="page"/>, which is zero and will lie at <see cref="BootLayout.PvhStartInfo"/>.</summary>
    public static void Build(Span<byte> page, Initrd initrd, ReadOnlySpan<E820Entry> map, ulong rsdp)
    {
        ulong modules = initrd.Length == 0 ? 0ul : 1;
        BinaryPrimitives.WriteUInt32LittleEndian(page, Magic);
        BinaryPrimitives.WriteUInt32LittleEndian(page[4..], 1);
        BinaryPrimitives.WriteUInt32LittleEndian(page[12..], (uint)modules);
        BinaryPrimitives.WriteUInt64LittleEndian(page[16..], modules == 0 ? 0 : BootLayout.PvhStartInfo + ModuleOffset);
        BinaryPrimitives.WriteUInt64LittleEndian(page[24..], BootLayout.CommandLine);
        BinaryPrimitives.WriteUInt64LittleEndian(page[32..], rsdp);
        BinaryPrimitives.WriteUInt64LittleEndian(page[40..], BootLayout.PvhStartInfo + MapOffset);
        BinaryPrimitives.WriteUInt32LittleEndian(page[48..], (uint)map.Length);
        BinaryPrimitives.WriteUInt64LittleEndian(page[ModuleOffset..], initrd.Gpa);
        BinaryPrimitives.WriteUInt64LittleEndian(page[(ModuleOffset + 8)..], initrd.Length);
        Span<byte> table = page[MapOffset..];
        foreach (E820Entry e in map)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(table, e.Gpa);
            BinaryPrimitives.WriteUInt64LittleEndian(table[8..], e.Length);
            BinaryPrimitives.WriteUInt32LittleEndian(table[16..], e.Type);
            table = table[MapEntrySize..];
        }
    }
}
