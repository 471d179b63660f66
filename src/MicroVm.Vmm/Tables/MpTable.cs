using System.Buffers.Binary;
using MicroVm.Memory;
using MicroVm.Vmm.Boot;

namespace MicroVm.Vmm.Tables;

/// <summary>
/// The MP table (Intel MultiProcessor Specification 1.4, chapter 4): processors, one ISA bus, the I/O APIC, and the
/// interrupt lines that are in use. A kernel without ACPI needs no more.
/// </summary>
public static class MpTable
{
    private const int HeaderLength = 44;
    private const byte SpecRevision = 4;
    private const byte ApicVersion = 0x14;
    private const byte IoApicVersion = 0x11;
    private const byte Enabled = 1;
    private const byte BootProcessor = 2;
    private const byte InterruptVectored = 0;
    private const byte InterruptNmi = 1;
    private const byte InterruptExtInt = 3;
    private const byte AllApics = 0xff;

    /// <summary>Writes floating pointer and configuration table into guest RAM.</summary>
    /// <param name="memory">Guest RAM.</param>
    /// <param name="vcpus">Number of processors; APIC ids count from 0.</param>
    /// <param name="irqs">Interrupt lines in use: I/O APIC pins of the same number, edge-triggered as ISA's are.</param>
    public static void Write(GuestMemory memory, int vcpus, ReadOnlySpan<uint> irqs)
    {
        ArgumentNullException.ThrowIfNull(memory);
        memory.TryWrite(BootLayout.MpConfigTable, BuildConfigTable(vcpus, irqs));
        Span<byte> pointer = stackalloc byte[16];
        pointer.Clear();
        "_MP_"u8.CopyTo(pointer);
        BinaryPrimitives.WriteUInt32LittleEndian(pointer[4..], (uint)BootLayout.MpConfigTable);
        pointer[8] = 1;
        pointer[9] = SpecRevision;
        pointer[10] = Checksum.Of(pointer);
        memory.TryWrite(BootLayout.MpFloatingPointer, pointer);
    }

    /// <summary>Builds the configuration table alone.</summary>
    public static byte[] BuildConfigTable(int vcpus, ReadOnlySpan<uint> irqs)
    {
        byte ioApicId = (byte)vcpus;
        byte[] table = new byte[HeaderLength + (20 * vcpus) + 16 + (8 * (irqs.Length + 2))];
        Span<byte> rest = table.AsSpan(HeaderLength);
        for (int i = 0; i < vcpus; i++)
        {
            rest[1] = (byte)i;
            rest[2] = ApicVersion;
            rest[3] = (byte)(Enabled | (i == 0 ? BootProcessor : 0));
            BinaryPrimitives.WriteUInt32LittleEndian(rest[4..], 0x600);
            BinaryPrimitives.WriteUInt32LittleEndian(rest[8..], 0x201);
            rest = rest[20..];
        }

        rest[0] = 1;
        "ISA   "u8.CopyTo(rest[2..]);
        rest = rest[8..];

        rest[0] = 2;
        rest[1] = ioApicId;
        rest[2] = IoApicVersion;
        rest[3] = Enabled;
        BinaryPrimitives.WriteUInt32LittleEndian(rest[4..], BootLayout.IoApic);
        rest = rest[8..];

        foreach (uint irq in irqs)
        {
            rest = WriteInterrupt(rest, 3, InterruptVectored, (byte)irq, ioApicId, (byte)irq);
        }

        rest = WriteInterrupt(rest, 4, InterruptExtInt, 0, 0, 0);
        WriteInterrupt(rest, 4, InterruptNmi, 0, AllApics, 1);

        Span<byte> header = table;
        "PCMP"u8.CopyTo(header);
        BinaryPrimitives.WriteUInt16LittleEndian(header[4..], (ushort)table.Length);
        header[6] = SpecRevision;
        "MICROVM "u8.CopyTo(header[8..]);
        "MICROVM     "u8.CopyTo(header[16..]);
        BinaryPrimitives.WriteUInt16LittleEndian(header[34..], (ushort)(vcpus + irqs.Length + 4));
        BinaryPrimitives.WriteUInt32LittleEndian(header[36..], BootLayout.LocalApic);
        header[7] = Checksum.Of(table);
        return table;
    }

    private static Span<byte> WriteInterrupt(Span<byte> at, byte entryType, byte interruptType, byte sourceIrq, byte apic, byte pin)
    {
        // Flags 0: polarity and trigger mode conform to the bus, source bus 0.
        at[0] = entryType;
        at[1] = interruptType;
        at[5] = sourceIrq;
        at[6] = apic;
        at[7] = pin;
        return at[8..];
    }
}
