using System.Buffers.Binary;
using FsCheck;
using FsCheck.Fluent;
using MicroVm.Memory;
using MicroVm.Vmm.Boot;

namespace MicroVm.Vmm.Tests.Boot;

public sealed class BzImageLoaderTests
{
    private const int SetupSectors = 4;
    private const int KernelBytes = 0x1000;

    internal static byte[] Image(ReadOnlySpan<byte> code = default)
    {
        byte[] image = new byte[((SetupSectors + 1) * 512) + KernelBytes];
        Span<byte> b = image;
        b[SetupHeader.SetupSects] = SetupSectors;
        BinaryPrimitives.WriteUInt32LittleEndian(b[SetupHeader.Syssize..], KernelBytes / 16);
        BinaryPrimitives.WriteUInt16LittleEndian(b[SetupHeader.BootFlag..], 0xaa55);
        b[SetupHeader.Jump] = 0xeb;
        b[SetupHeader.Jump + 1] = 0x6a;
        "HdrS"u8.CopyTo(b[SetupHeader.Header..]);
        BinaryPrimitives.WriteUInt16LittleEndian(b[SetupHeader.Version..], 0x020f);
        b[SetupHeader.Loadflags] = 1;
        BinaryPrimitives.WriteUInt32LittleEndian(b[SetupHeader.InitrdAddrMax..], 0x7fff_ffff);
        BinaryPrimitives.WriteUInt16LittleEndian(b[SetupHeader.Xloadflags..], 1);
        BinaryPrimitives.WriteUInt32LittleEndian(b[SetupHeader.CmdlineSize..], 2047);
        BinaryPrimitives.WriteUInt64LittleEndian(b[SetupHeader.PrefAddress..], 0x100_0000);
        BinaryPrimitives.WriteUInt32LittleEndian(b[SetupHeader.InitSize..], 0x10_0000);
        code.CopyTo(b[(((SetupSectors + 1) * 512) + 0x200)..]);
        return image;
    }

    [Fact]
    public void Loads_the_protected_mode_part_to_one_MiB()
    {
        using GuestMemory memory = GuestMemory.Create(32 << 20);
        using BootFile file = ElfBuilder.File(Image([1, 2, 3]));
        KernelImage image = KernelLoader.Load(file, memory);
        Assert.Equal((0x10_0200ul, 0x10_0000ul, 0x110_0000ul), (image.Entry, image.Start, image.End));
        Assert.Equal(2047, image.CommandLineMax);
        Assert.True(memory.TryRead(0x10_0200, out uint code));
        Assert.Equal(0x30201u, code);
    }

    [Theory]
    [InlineData(SetupHeader.Version, (byte)0x0b, "older than 2.12")]
    [InlineData(SetupHeader.Loadflags, (byte)0, "zImage")]
    [InlineData(SetupHeader.Xloadflags, (byte)0, "64-bit entry")]
    [InlineData(SetupHeader.Jump + 1, (byte)0x10, "ends before init_size")]
    [InlineData(SetupHeader.SetupSects, (byte)60, "cut off")]
    [InlineData(SetupHeader.Syssize + 1, (byte)0x70, "cut off")]
    [InlineData(SetupHeader.InitSize + 3, (byte)0x7f, "give it more")]
    [InlineData(SetupHeader.PrefAddress + 7, (byte)0xff, "give it more")]
    [InlineData(0, (byte)0x7f, null)]
    public void A_broken_rule_is_named(int offset, byte value, string? rule)
    {
        byte[] image = Image();
        image[offset] = value;
        if (offset == SetupHeader.Version)
        {
            image[offset + 1] = 2;
        }

        using GuestMemory memory = GuestMemory.Create(32 << 20);
        using BootFile file = ElfBuilder.File(image, "kernel /boot/x");
        if (rule is null)
        {
            // The first bytes are the boot sector's, whatever they are.
            Assert.Equal(0x10_0200ul, KernelLoader.Load(file, memory).Entry);
            return;
        }

        BootException e = Assert.Throws<BootException>(() => KernelLoader.Load(file, memory));
        Assert.StartsWith("kernel /boot/x: ", e.Message, StringComparison.Ordinal);
        Assert.Contains(rule, e.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    [InlineData(600)]
    public void A_file_that_is_no_kernel_is_named(int length)
    {
        using GuestMemory memory = GuestMemory.Create(32 << 20);
        using BootFile file = ElfBuilder.File(new byte[length], "kernel /etc/x");
        Assert.Contains("kernel /etc/x: ", Assert.Throws<BootException>(() => KernelLoader.Load(file, memory)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Mutated_files_load_or_throw_the_documented_exception()
    {
        byte[] good = Image();
        using GuestMemory memory = GuestMemory.Create(32 << 20);
        Gen<(int At, byte Value)> change =
            from at in Gen.Choose(SetupHeader.SetupSects, SetupHeader.InitSize + 4)
            from value in Gen.OneOf(Gen.Choose(0, 255), Gen.Elements(0, 1, 0x7f, 0x80, 0xff))
            select (at, (byte)value);
        var mutations =
            from changes in change.ArrayOf(3)
            from length in Gen.Frequency((5, Gen.Constant(good.Length)), (1, Gen.Choose(0, good.Length)))
            select (changes, length);
        Prop.ForAll(mutations.ToArbitrary(), m =>
        {
            byte[] bytes = [.. good];
            foreach ((int at, byte value) in m.changes)
            {
                bytes[at] = value;
            }

            using BootFile file = ElfBuilder.File(bytes.AsSpan(0, m.length));
            try
            {
                KernelImage image = KernelLoader.Load(file, memory);
                Assert.True(memory.Contains(image.Start, image.End - image.Start));
                ZeroPage.Build(new byte[4096], image, default, E820.Build(memory), 0);
            }
            catch (BootException)
            {
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(2000));
    }
}
