using MicroVm.Memory;

namespace MicroVm.Vmm.Boot;

/// <summary>A range of the memory map that the kernel is given (ACPI 6.4, 15: e820).</summary>
/// <param name="Gpa">First address.</param>
/// <param name="Length">Length in bytes.</param>
/// <param name="Type"><see cref="Ram"/> or <see cref="Reserved"/>.</param>
public readonly record struct E820Entry(ulong Gpa, ulong Length, uint Type)
{
    /// <summary>Usable memory.</summary>
    public const uint Ram = 1;

    /// <summary>Not to be used.</summary>
    public const uint Reserved = 2;
}

/// <summary>The guest's memory map.</summary>
public static class E820
{
    /// <summary>Entries by rising address: base memory, what the VMM's tables occupy, and the RAM behind.</summary>
    public static E820Entry[] Build(GuestMemory memory)
    {
        ArgumentNullException.ThrowIfNull(memory);
        ReadOnlySpan<GuestRegion> regions = memory.Regions;
        E820Entry[] map = new E820Entry[3 + regions.Length];
        map[0] = new E820Entry(0, BootLayout.LowMemoryEnd, E820Entry.Ram);
        map[1] = new E820Entry(BootLayout.LowMemoryEnd, BootLayout.BaseMemoryEnd - BootLayout.LowMemoryEnd, E820Entry.Reserved);
        map[2] = new E820Entry(BootLayout.AcpiTables, BootLayout.HighMemory - BootLayout.AcpiTables, E820Entry.Reserved);
        map[3] = new E820Entry(BootLayout.HighMemory, regions[0].End - BootLayout.HighMemory, E820Entry.Ram);
        for (int i = 1; i < regions.Length; i++)
        {
            map[3 + i] = new E820Entry(regions[i].Gpa, regions[i].Length, E820Entry.Ram);
        }

        return map;
    }
}
