using System.Buffers.Binary;
using System.Reflection;
using System.Text;
using MicroVm.Memory;
using MicroVm.Tests.Shared;
using MicroVm.Vmm.Boot;

namespace MicroVm.Vmm.Tests.Boot;

public sealed class ZeroPageTests
{
    private static readonly KernelImage Elf = new() { Protocol = BootProtocol.Linux64, Entry = 0x100_0000, Start = 0x100_0000, End = 0x200_0000 };

    /// <summary>Our names are boot_params' and setup_header's in another spelling: acpi_rsdp_addr is AcpiRsdpAddr.</summary>
    [SkippableFact]
    public void Offsets_equal_the_header()
    {
        Skip.If(AbiOracle.Missing is not null, AbiOracle.Missing);
        Dictionary<string, long> ours = [];
        foreach (FieldInfo field in typeof(SetupHeader).GetFields(BindingFlags.Static | BindingFlags.Public).Where(f => f.FieldType == typeof(int)))
        {
            if (field.Name is nameof(SetupHeader.End))
            {
                continue;
            }

            string name = string.Concat(field.Name.Select((c, i) => char.IsUpper(c) && i > 0 ? $"_{char.ToLowerInvariant(c)}" : char.ToLowerInvariant(c).ToString()));
            bool outside = name is "acpi_rsdp_addr" or "ext_ramdisk_image" or "ext_ramdisk_size" or "ext_cmd_line_ptr" or "e820_entries" or "e820_table";
            ours[$"__builtin_offsetof(struct boot_params, {(outside ? "" : "hdr.")}{name})"] = (int)field.GetRawConstantValue()!;
        }

        ours["sizeof(struct boot_params)"] = 4096;
        ours["sizeof(struct boot_e820_entry)"] = 20;
        ours["XLF_KERNEL_64"] = SetupHeader.XlfKernel64;
        ours["LOADED_HIGH"] = SetupHeader.LoadedHigh;
        IReadOnlyDictionary<string, long> theirs = AbiOracle.Evaluate("#include <asm/bootparam.h>", ours.Keys);
        Assert.Equal(ours.OrderBy(p => p.Key, StringComparer.Ordinal), theirs.OrderBy(p => p.Key, StringComparer.Ordinal));
    }

    [Fact]
    public void Fields_of_an_ELF_kernel()
    {
        byte[] page = new byte[4096];
        E820Entry[] map = [new(0, 0x9fc00, 1), new(0x10_0000, 0x700_0000, 1)];
        ZeroPage.Build(page, Elf, new Initrd(0x1_2345_6000, 0x1_0000_0002), map, 0xe0000);
        Assert.Equal(0xffu, page[SetupHeader.TypeOfLoader]);
        Assert.Equal(0x5372_6448u, U32(page, SetupHeader.Header));
        Assert.Equal((uint)BootLayout.CommandLine, U32(page, SetupHeader.CmdLinePtr));
        Assert.Equal((0x2345_6000u, 1u), (U32(page, SetupHeader.RamdiskImage), U32(page, SetupHeader.ExtRamdiskImage)));
        Assert.Equal((2u, 1u), (U32(page, SetupHeader.RamdiskSize), U32(page, SetupHeader.ExtRamdiskSize)));
        Assert.Equal(0xe0000u, U32(page, SetupHeader.AcpiRsdpAddr));
        Assert.Equal(2, page[SetupHeader.E820Entries]);
        Assert.Equal(0x700_0000u, U32(page, SetupHeader.E820Table + 28));

        // The sentinel must stay 0, or the kernel throws fields away.
        Assert.Equal(0, page[0x1ef]);
    }

    [Fact]
    public void A_bzImages_setup_header_is_copied_and_nothing_before_it()
    {
        using GuestMemory memory = GuestMemory.Create(32 << 20);
        byte[] image = BzImageLoaderTests.Image();
        image.AsSpan(0, SetupHeader.SetupSects).Fill(0xee);
        using BootFile file = ElfBuilder.File(image);
        byte[] page = new byte[4096];
        ZeroPage.Build(page, KernelLoader.Load(file, memory), default, E820.Build(memory), 0);
        Assert.Equal(0x10_0000u, U32(page, SetupHeader.InitSize));
        Assert.DoesNotContain((byte)0xee, page);
    }

    [Theory]
    [InlineData(64)]
    [InlineData(4096)]
    public void Memory_map_covers_RAM_without_overlap(int mib)
    {
        using GuestMemory memory = GuestMemory.Create((ulong)mib << 20);
        E820Entry[] map = E820.Build(memory);
        for (int i = 1; i < map.Length; i++)
        {
            Assert.True(map[i - 1].Gpa + map[i - 1].Length <= map[i].Gpa);
        }

        ulong usable = 0;
        foreach (E820Entry e in map.Where(e => e.Type == E820Entry.Ram))
        {
            Assert.True(memory.Contains(e.Gpa, e.Length));
            usable += e.Length;
        }

        Assert.Equal(memory.Size - (0x10_0000 - BootLayout.LowMemoryEnd), usable);
    }

    [Fact]
    public void Initrd_lies_at_the_top_and_clear_of_the_kernel()
    {
        using GuestMemory memory = GuestMemory.Create(64 << 20);
        using BootFile file = ElfBuilder.File(new byte[5000], "initrd x");
        Initrd initrd = Initrd.Load(file, memory, Elf);
        Assert.Equal((0x400_0000ul - 0x2000, 5000ul), (initrd.Gpa, initrd.Length));
        KernelImage large = Elf with { End = 0x3fff_0000 };
        string message = Assert.Throws<BootException>(() => Initrd.Load(file, memory, large)).Message;
        Assert.Contains("initrd x", message, StringComparison.Ordinal);
        Assert.Contains("more memory", message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("a b", "a b X Y")]
    [InlineData("", "X Y")]
    [InlineData("a -- b", "a X Y -- b")]
    [InlineData("-- b", "X Y -- b")]
    [InlineData("a --b", "a --b X Y")]
    [InlineData("a --", "a X Y --")]
    public void Additions_go_before_the_init_arguments(string given, string expected) =>
        Assert.Equal(expected, KernelCommandLine.Compose(given, ["X", "Y"]));

    [Fact]
    public void Command_line_is_bounded_and_ended_by_zero()
    {
        using GuestMemory memory = GuestMemory.Create(16 << 20);
        KernelCommandLine.Write(memory, new string('x', 2047), Elf);
        byte[] read = new byte[2048];
        Assert.True(memory.TryRead(BootLayout.CommandLine, read));
        Assert.Equal(new string('x', 2047) + "\0", Encoding.ASCII.GetString(read));
        Assert.Throws<BootException>(() => KernelCommandLine.Write(memory, new string('x', 2048), Elf));
        Assert.Throws<BootException>(() => KernelCommandLine.Write(memory, "a\nb", Elf));
    }

    private static uint U32(byte[] page, int offset) => BinaryPrimitives.ReadUInt32LittleEndian(page.AsSpan(offset));
}
