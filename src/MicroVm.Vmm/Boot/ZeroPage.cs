using System.Buffers.Binary;
using MicroVm.Memory;

namespace MicroVm.Vmm.Boot;

/// <summary>Fills boot_params, the "zero page" of the Linux boot protocol (Documentation/x86/zero-page.rst).</summary>
public static class ZeroPage
{
    private const int E820EntrySize = 20;
    private const int MaxE820Entries = 128;

    /// <summary>Fills <paramref name="page"/>, which is one page of zero bytes.</summary>
    /// <param name="page">The page.</param>
    /// <param name="kernel">The loaded kernel; a bzImage's setup header is copied.</param>
    /// <param name="initrd">The initrd, with length 0 when there is none.</param>
    /// <param name="map">The memory map, at most 128 entries.</param>
    /// <param name="rsdp">GPA of the ACPI root pointer; 0 when there is no ACPI.</param>
    public static void Build(Span<byte> page, KernelImage kernel, Initrd initrd, ReadOnlySpan<E820Entry> map, ulong rsdp)
    {
        ArgumentNullException.ThrowIfNull(kernel);
        ArgumentOutOfRangeException.ThrowIfLessThan(page.Length, GuestMemory.PageSize);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(map.Length, MaxE820Entries);
        if (kernel.SetupHeader is { } header)
        {
            header.CopyTo(page[SetupHeader.SetupSects..]);
        }
        else
        {
            BinaryPrimitives.WriteUInt16LittleEndian(page[SetupHeader.BootFlag..], SetupHeader.BootFlagValue);
            BinaryPrimitives.WriteUInt32LittleEndian(page[SetupHeader.Header..], SetupHeader.HeaderMagic);
            BinaryPrimitives.WriteUInt16LittleEndian(page[SetupHeader.Version..], SetupHeader.MinimalVersion);
            page[SetupHeader.Loadflags] = SetupHeader.LoadedHigh;
            BinaryPrimitives.WriteUInt32LittleEndian(page[SetupHeader.KernelAlignment..], 0x0100_0000);
            BinaryPrimitives.WriteUInt32LittleEndian(page[SetupHeader.CmdlineSize..], (uint)kernel.CommandLineMax);
        }

        page[SetupHeader.TypeOfLoader] = SetupHeader.UndefinedLoader;
        BinaryPrimitives.WriteUInt64LittleEndian(page[SetupHeader.AcpiRsdpAddr..], rsdp);
        BinaryPrimitives.WriteUInt32LittleEndian(page[SetupHeader.CmdLinePtr..], (uint)BootLayout.CommandLine);
        BinaryPrimitives.WriteUInt32LittleEndian(page[SetupHeader.RamdiskImage..], (uint)initrd.Gpa);
        BinaryPrimitives.WriteUInt32LittleEndian(page[SetupHeader.RamdiskSize..], (uint)initrd.Length);
        BinaryPrimitives.WriteUInt32LittleEndian(page[SetupHeader.ExtRamdiskImage..], (uint)(initrd.Gpa >> 32));
        BinaryPrimitives.WriteUInt32LittleEndian(page[SetupHeader.ExtRamdiskSize..], (uint)(initrd.Length >> 32));
        page[SetupHeader.E820Entries] = (byte)map.Length;
        Span<byte> table = page[SetupHeader.E820Table..];
        foreach (E820Entry e in map)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(table, e.Gpa);
            BinaryPrimitives.WriteUInt64LittleEndian(table[8..], e.Length);
            BinaryPrimitives.WriteUInt32LittleEndian(table[16..], e.Type);
            table = table[E820EntrySize..];
        }
    }
}
