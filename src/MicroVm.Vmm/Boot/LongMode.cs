using System.Buffers.Binary;
using MicroVm.Memory;

namespace MicroVm.Vmm.Boot;

/// <summary>The GDT and the identity page tables that a kernel starts on (Intel SDM volume 3, 3.4.5 and 4.5).</summary>
public static class LongMode
{
    /// <summary>__BOOT_CS: the 64-bit code segment's selector (Documentation/x86/boot.rst, 1.14).</summary>
    public const ushort CodeSelector = 0x10;

    /// <summary>__BOOT_DS: the data segment's selector.</summary>
    public const ushort DataSelector = 0x18;

    /// <summary>The task segment's selector.</summary>
    public const ushort TaskSelector = 0x20;

    /// <summary>Limit of the GDT: six slots, as the task descriptor takes two.</summary>
    public const ushort GdtLimit = (6 * 8) - 1;

    private const ulong PresentWritable = 3;
    private const ulong PresentWritableLarge = 0x83;
    private const int EntriesPerTable = 512;

    /// <summary>
    /// Writes a flat GDT (code with L for long mode, or with D for <paramref name="protocol"/> PVH) and, for long mode,
    /// tables that identity-map the first GiB by 2 MiB pages.
    /// </summary>
    public static void Write(GuestMemory memory, BootProtocol protocol)
    {
        ArgumentNullException.ThrowIfNull(memory);
        Span<byte> gdt = stackalloc byte[GdtLimit + 1];
        gdt.Clear();
        BinaryPrimitives.WriteUInt64LittleEndian(gdt[CodeSelector..], protocol == BootProtocol.Linux64 ? 0x00af_9b00_0000_fffful : 0x00cf_9b00_0000_fffful);
        BinaryPrimitives.WriteUInt64LittleEndian(gdt[DataSelector..], 0x00cf_9300_0000_ffff);
        BinaryPrimitives.WriteUInt64LittleEndian(gdt[TaskSelector..], 0x0000_8b00_0000_0067);
        memory.TryWrite(BootLayout.Gdt, gdt);
        if (protocol != BootProtocol.Linux64)
        {
            return;
        }

        const ulong Pointers = BootLayout.PageTables + GuestMemory.PageSize;
        const ulong Directory = Pointers + GuestMemory.PageSize;
        memory.TryWrite(BootLayout.PageTables, Pointers | PresentWritable);
        memory.TryWrite(Pointers, Directory | PresentWritable);
        Span<byte> directory = new byte[EntriesPerTable * 8];
        for (int i = 0; i < EntriesPerTable; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(directory[(8 * i)..], ((ulong)i << 21) | PresentWritableLarge);
        }

        memory.TryWrite(Directory, directory);
    }
}
