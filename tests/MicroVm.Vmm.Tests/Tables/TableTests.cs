using System.Buffers.Binary;
using System.Diagnostics;
using System.Text;
using MicroVm.Memory;
using MicroVm.Vmm.Boot;
using MicroVm.Vmm.Tables;
using MicroVm.Vmm.Tables.Acpi;

namespace MicroVm.Vmm.Tests.Tables;

public sealed class TableTests
{
    private static readonly AcpiVirtioDevice[] Devices = [.. Enumerable.Range(0, 19).Select(i => new AcpiVirtioDevice(0xd000_0000 + ((ulong)i << 12), (uint)i + 5))];

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(32)]
    public void Mp_table_is_whole(int vcpus)
    {
        using GuestMemory memory = GuestMemory.Create(16 << 20);
        uint[] irqs = [4, 5, 23];
        MpTable.Write(memory, vcpus, irqs);
        Assert.True(memory.TryGetSpan(BootLayout.MpFloatingPointer, 16, out Span<byte> pointer));
        Assert.Equal("_MP_"u8, pointer[..4]);
        Assert.Equal(0, Sum(pointer));
        Assert.True(memory.TryGetSpan(BinaryPrimitives.ReadUInt32LittleEndian(pointer[4..]), 44, out Span<byte> header));
        Assert.Equal("PCMP"u8, header[..4]);
        int length = BinaryPrimitives.ReadUInt16LittleEndian(header[4..]);
        Assert.True(memory.TryGetSpan(BootLayout.MpConfigTable, (ulong)length, out Span<byte> table));
        Assert.Equal(0, Sum(table));

        // Entries are 20 bytes for a processor and 8 for all others; their count must end at the table's length.
        int[] counts = new int[5];
        int at = 44;
        for (int i = 0; i < BinaryPrimitives.ReadUInt16LittleEndian(header[34..]); i++)
        {
            counts[table[at]]++;
            at += table[at] == 0 ? 20 : 8;
        }

        Assert.Equal(length, at);
        Assert.Equal([vcpus, 1, 1, irqs.Length, 2], counts);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(32)]
    public void Acpi_tables_are_reachable_from_the_root_and_sum_to_zero(int vcpus)
    {
        using GuestMemory memory = GuestMemory.Create(16 << 20);
        ulong rsdp = AcpiTables.Write(memory, vcpus, Devices);
        Assert.True(memory.TryGetSpan(rsdp, AcpiTables.RsdpLength, out Span<byte> root));
        Assert.Equal("RSD PTR "u8, root[..8]);
        Assert.Equal((0, 0), (Sum(root[..20]), Sum(root)));
        byte[] xsdt = Table(memory, BinaryPrimitives.ReadUInt64LittleEndian(root[24..]), "XSDT");
        byte[] fadt = Table(memory, BinaryPrimitives.ReadUInt64LittleEndian(xsdt.AsSpan(36)), "FACP");
        byte[] madt = Table(memory, BinaryPrimitives.ReadUInt64LittleEndian(xsdt.AsSpan(44)), "APIC");
        Assert.Equal(36 + 8 + (8 * vcpus) + 12 + 6, madt.Length);
        Assert.Equal(AcpiTables.FadtLength, fadt.Length);
        Assert.NotEqual(0u, BinaryPrimitives.ReadUInt32LittleEndian(fadt.AsSpan(112)) & (1u << 20));
        Assert.Equal([1, 8, 0, 1, 0, 6], fadt[244..250]);
        Assert.Equal([1, 8, 0, 1, 2, 6], fadt[116..122]);
        Table(memory, BinaryPrimitives.ReadUInt64LittleEndian(fadt.AsSpan(140)), "DSDT");
    }

    /// <summary>The byte strings are those that iasl makes of the same declarations.</summary>
    [Fact]
    public void Aml_encodings()
    {
        Assert.Equal(0x0105_d041u, AmlWriter.EisaId("PNP0501"));
        Assert.Equal(
            [0x08, (byte)'_', (byte)'S', (byte)'5', (byte)'_', 0x12, 0x06, 0x03, 0x0a, 0x05, 0x00, 0x01],
            new AmlWriter().NamePackage("_S5_", 5, 0, 1).ToArray());
        Assert.Equal(
            [0x5b, 0x82, 0x0c, (byte)'D', (byte)'E', (byte)'V', (byte)'0', 0x08, (byte)'_', (byte)'U', (byte)'I', (byte)'D', 0x0a, 0x07],
            new AmlWriter().Device("DEV0", d => d.NameInteger("_UID", 7)).ToArray()[..14]);
        byte[] large = new AmlWriter().Scope("\\_SB_", s => s.NameText("_HID", new string('x', 5000))).ToArray();
        int declared = (large[1] & 0xf) | (large[2] << 4) | (large[3] << 12);
        Assert.Equal((0x80, large.Length - 1), (large[1] & 0xc0, declared));
    }

    [SkippableFact]
    public void Iasl_accepts_the_tables()
    {
        Skip.IfNot(File.Exists("/usr/bin/iasl"), "iasl is not installed (Debian package acpica-tools): the AML is not disassembled");
        string dir = Directory.CreateTempSubdirectory("acpi-").FullName;
        try
        {
            string dsdt = Disassemble(dir, "dsdt", AcpiTables.BuildDsdt(Devices));
            Assert.Equal(19, dsdt.Split("Name (_HID, \"LNRO0005\")").Length - 1);
            Assert.Contains("Memory32Fixed (ReadWrite,", dsdt, StringComparison.Ordinal);
            Assert.Contains("EisaId (\"PNP0501\")", dsdt, StringComparison.Ordinal);
            Assert.Contains("Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive", dsdt, StringComparison.Ordinal);
            string fadt = Disassemble(dir, "facp", AcpiTables.BuildFadt(0xe0040));
            Assert.Contains("Hardware Reduced (V5) : 1", fadt, StringComparison.Ordinal);
            Assert.Contains("Reset Register Supported (V2) : 1", fadt, StringComparison.Ordinal);
            Assert.DoesNotContain("Invalid", Disassemble(dir, "apic", AcpiTables.BuildMadt(4)), StringComparison.Ordinal);

            // What it disassembles it can assemble again, without an error.
            (int status, string output) = Run(dir, "/usr/bin/iasl", "-p", "again", "dsdt.dsl");
            Assert.True(status == 0 && output.Contains(" 0 Errors", StringComparison.Ordinal), output);
        }
        finally
        {
            Directory.Delete(dir, recursive: true);
        }
    }

    private static string Disassemble(string dir, string name, byte[] table)
    {
        File.WriteAllBytes(Path.Combine(dir, name + ".aml"), table);
        (int status, string output) = Run(dir, "/usr/bin/iasl", "-d", name + ".aml");
        Assert.True(status == 0 && !output.Contains("rror:", StringComparison.Ordinal), output);
        return File.ReadAllText(Path.Combine(dir, name + ".dsl"));
    }

    private static (int Status, string Output) Run(string dir, string program, params string[] arguments)
    {
        ProcessStartInfo start = new(program, arguments) { WorkingDirectory = dir, RedirectStandardOutput = true, RedirectStandardError = true };
        using Process process = Process.Start(start)!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output + errors.Result);
    }

    private static byte[] Table(GuestMemory memory, ulong gpa, string signature)
    {
        byte[] header = new byte[36];
        Assert.True(memory.TryRead(gpa, header));
        Assert.Equal(signature, Encoding.ASCII.GetString(header, 0, 4));
        byte[] table = new byte[BinaryPrimitives.ReadUInt32LittleEndian(header.AsSpan(4))];
        Assert.True(memory.TryRead(gpa, table));
        Assert.Equal(0, Sum(table));
        return table;
    }

    private static int Sum(ReadOnlySpan<byte> bytes)
    {
        byte sum = 0;
        foreach (byte b in bytes)
        {
            sum += b;
        }

        return sum;
    }
}
