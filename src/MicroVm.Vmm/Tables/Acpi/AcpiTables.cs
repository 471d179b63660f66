using System.Buffers.Binary;
using System.Globalization;
using MicroVm.Bus;
using MicroVm.Memory;
using MicroVm.Virtio.Mmio;
using MicroVm.Vmm.Boot;

namespace MicroVm.Vmm.Tables.Acpi;

/// <summary>A virtio-mmio window as ACPI describes it.</summary>
/// <param name="Gpa">First address; below 4 GiB.</param>
/// <param name="Gsi">Its edge-triggered interrupt.</param>
public readonly record struct AcpiVirtioDevice(ulong Gpa, uint Gsi);

/// <summary>
/// ACPI tables for stock kernels: RSDP, XSDT, a hardware-reduced FADT with sleep and reset registers, MADT, and a DSDT
/// with the serial port and the virtio-mmio devices (ACPI 6.4, chapter 5).
/// </summary>
public static class AcpiTables
{
    /// <summary>Length of a FADT of revision 6.</summary>
    public const int FadtLength = 276;

    /// <summary>Length of an RSDP of revision 2.</summary>
    public const int RsdpLength = 36;

    private const uint FadtWbinvd = 1;
    private const uint FadtPowerButtonIsDevice = 1 << 4;
    private const uint FadtSleepButtonIsDevice = 1 << 5;
    private const uint FadtResetRegister = 1 << 10;
    private const uint FadtHeadless = 1 << 12;
    private const uint FadtHardwareReduced = 1 << 20;
    private const ushort BootNoVga = 1 << 2;
    private const ushort BootNoCmosRtc = 1 << 5;

    /// <summary>Writes the tables into guest RAM, from <see cref="BootLayout.AcpiTables"/> on.</summary>
    /// <returns>GPA of the RSDP.</returns>
    /// <exception cref="BootException">They do not fit into their room.</exception>
    public static ulong Write(GuestMemory memory, int vcpus, ReadOnlySpan<AcpiVirtioDevice> devices)
    {
        ArgumentNullException.ThrowIfNull(memory);
        ulong at = BootLayout.AcpiTables + Align(RsdpLength);
        ulong dsdt = Place(memory, ref at, BuildDsdt(devices));
        ulong fadt = Place(memory, ref at, BuildFadt(dsdt));
        ulong madt = Place(memory, ref at, BuildMadt(vcpus));
        Span<byte> pointers = stackalloc byte[16];
        BinaryPrimitives.WriteUInt64LittleEndian(pointers, fadt);
        BinaryPrimitives.WriteUInt64LittleEndian(pointers[8..], madt);
        ulong xsdt = Place(memory, ref at, AcpiTable.Make("XSDT"u8, 1, pointers));
        memory.TryWrite(BootLayout.AcpiTables, BuildRsdp(xsdt));
        return BootLayout.AcpiTables;
    }

    /// <summary>The root pointer (5.2.5.3).</summary>
    public static byte[] BuildRsdp(ulong xsdt)
    {
        byte[] rsdp = new byte[RsdpLength];
        "RSD PTR "u8.CopyTo(rsdp);
        "MICROV"u8.CopyTo(rsdp.AsSpan(9));
        rsdp[15] = 2;
        BinaryPrimitives.WriteUInt32LittleEndian(rsdp.AsSpan(20), RsdpLength);
        BinaryPrimitives.WriteUInt64LittleEndian(rsdp.AsSpan(24), xsdt);
        rsdp[8] = Checksum.Of(rsdp.AsSpan(0, 20));
        rsdp[32] = Checksum.Of(rsdp);
        return rsdp;
    }

    /// <summary>The FADT (5.2.9).</summary>
    public static byte[] BuildFadt(ulong dsdt)
    {
        byte[] table = new byte[FadtLength];
        Span<byte> t = table;
        BinaryPrimitives.WriteUInt32LittleEndian(t[40..], (uint)dsdt);
        BinaryPrimitives.WriteUInt16LittleEndian(t[109..], BootNoVga | BootNoCmosRtc);
        BinaryPrimitives.WriteUInt32LittleEndian(
            t[112..], FadtWbinvd | FadtPowerButtonIsDevice | FadtSleepButtonIsDevice | FadtResetRegister | FadtHeadless | FadtHardwareReduced);
        WritePort(t[116..], IoPorts.Reset);
        t[128] = IoPorts.ResetValue;
        t[131] = 4;
        BinaryPrimitives.WriteUInt64LittleEndian(t[140..], dsdt);
        WritePort(t[244..], IoPorts.SleepControl);
        WritePort(t[256..], IoPorts.SleepStatus);
        return AcpiTable.Make("FACP"u8, 6, t[AcpiTable.HeaderLength..]);
    }

    /// <summary>The MADT (5.2.12): local APICs, whose ids count from 0, the I/O APIC, and NMI on LINT1 of each.</summary>
    public static byte[] BuildMadt(int vcpus)
    {
        byte[] body = new byte[8 + (8 * vcpus) + 12 + 6];
        Span<byte> rest = body;
        BinaryPrimitives.WriteUInt32LittleEndian(rest, BootLayout.LocalApic);
        rest = rest[8..];
        for (int i = 0; i < vcpus; i++)
        {
            rest[1] = 8;
            rest[2] = (byte)i;
            rest[3] = (byte)i;
            rest[4] = 1;
            rest = rest[8..];
        }

        rest[0] = 1;
        rest[1] = 12;
        rest[2] = (byte)vcpus;
        BinaryPrimitives.WriteUInt32LittleEndian(rest[4..], BootLayout.IoApic);
        rest = rest[12..];

        rest[0] = 4;
        rest[1] = 6;
        rest[2] = 0xff;
        rest[5] = 1;
        return AcpiTable.Make("APIC"u8, 5, body);
    }

    /// <summary>The DSDT: \_SB with the devices, and the type of the soft-off state.</summary>
    public static byte[] BuildDsdt(ReadOnlySpan<AcpiVirtioDevice> devices)
    {
        AcpiVirtioDevice[] list = devices.ToArray();
        AmlWriter aml = new();
        aml.Scope("\\_SB_", scope =>
        {
            scope.Device("COM1", device => device
                .NameEisaId("_HID", "PNP0501")
                .NameInteger("_UID", 0)
                .CurrentResources(AmlWriter.Ports(IoPorts.Serial, 8), AmlWriter.EdgeInterrupt(IoPorts.SerialIrq)));
            for (int i = 0; i < list.Length; i++)
            {
                uint uid = (uint)i;
                AcpiVirtioDevice window = list[i];
                scope.Device(string.Create(CultureInfo.InvariantCulture, $"VR{i:D2}"), device => device
                    .NameText("_HID", "LNRO0005")
                    .NameInteger("_UID", uid)
                    .CurrentResources(AmlWriter.Memory32Fixed((uint)window.Gpa, MmioRegister.WindowLength), AmlWriter.EdgeInterrupt(window.Gsi)));
            }
        });
        aml.NamePackage("\\_S5_", IoPorts.SleepTypeS5, IoPorts.SleepTypeS5, 0, 0);

        // Revision 2: integers are 64 bits wide.
        return AcpiTable.Make("DSDT"u8, 2, aml.ToArray());
    }

    /// <summary>A generic address structure (5.2.3.2): one I/O port, accessed as a byte.</summary>
    private static void WritePort(Span<byte> at, ushort port)
    {
        at[0] = 1;
        at[1] = 8;
        at[3] = 1;
        BinaryPrimitives.WriteUInt64LittleEndian(at[4..], port);
    }

    private static ulong Place(GuestMemory memory, ref ulong at, byte[] table)
    {
        ulong gpa = at;
        if (gpa + (ulong)table.Length > BootLayout.AcpiTablesEnd)
        {
            throw new BootException("the ACPI tables do not fit into their 64 KiB");
        }

        memory.TryWrite(gpa, table);
        at += Align((ulong)table.Length);
        return gpa;
    }

    private static ulong Align(ulong length) => (length + 15) & ~15ul;
}
