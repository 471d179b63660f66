using System.Runtime.InteropServices;
using FsCheck;
using FsCheck.Fluent;
using MicroVm.Linux;
using MicroVm.Memory;
using MicroVm.Vmm.Boot;

namespace MicroVm.Vmm.Tests.Boot;

public sealed class ElfLoaderTests
{
    private static readonly byte[] Code = [0x90, 0xf4, 1, 2, 3, 4, 5, 6];

    [Fact]
    public void Loads_a_segment_to_its_physical_address()
    {
        using GuestMemory memory = GuestMemory.Create(32 << 20);
        using BootFile file = ElfBuilder.File(ElfBuilder.Kernel(Code, memorySize: 0x2000));
        KernelImage image = KernelLoader.Load(file, memory);
        Assert.Equal(BootProtocol.Linux64, image.Protocol);
        Assert.Equal(ElfBuilder.LoadAddress, image.Entry);
        Assert.Equal((ElfBuilder.LoadAddress, ElfBuilder.LoadAddress + 0x2000), (image.Start, image.End));
        byte[] read = new byte[Code.Length];
        Assert.True(memory.TryRead(ElfBuilder.LoadAddress, read));
        Assert.Equal(Code, read);
    }

    /// <summary>Large segments are mapped where file and memory are aligned alike, and read where they are not: no difference.</summary>
    [Theory]
    [InlineData(0x0ul)]
    [InlineData(0x123ul)]
    public void A_large_segment_is_there_and_private_to_its_guest(ulong shift)
    {
        byte[] code = new byte[(200 << 10) + 77];
        Random.Shared.NextBytes(code);
        byte[] kernel = ElfBuilder.Kernel(code, load: ElfBuilder.LoadAddress + shift);
        using SafeFd fd = ElfBuilder.Memfd(kernel);
        for (int guest = 0; guest < 2; guest++)
        {
            using GuestMemory memory = GuestMemory.Create(64 << 20);
            using (BootFile file = new(fd.Duplicate(), "kernel"))
            {
                ElfLoader.Load(file, memory);
            }

            Assert.True(memory.TryGetSpan(ElfBuilder.LoadAddress + shift, (ulong)code.Length + 1000, out Span<byte> loaded));
            Assert.True(loaded[..code.Length].SequenceEqual(code));
            Assert.Equal(-1, loaded[code.Length..].IndexOfAnyExcept((byte)0));
            loaded.Fill(0xcc);
        }
    }

    [Fact]
    public void Entry_outside_of_the_segments_falls_back_to_the_PVH_note()
    {
        using GuestMemory memory = GuestMemory.Create(32 << 20);
        using BootFile file = ElfBuilder.File(ElfBuilder.Kernel(Code, entry: 0xffff_ffff_8100_0000, pvhEntry: 0x100_0001));
        KernelImage image = KernelLoader.Load(file, memory);
        Assert.Equal((BootProtocol.Pvh, 0x100_0001ul), (image.Protocol, image.Entry));
    }

    [Fact]
    public void Linux_entry_is_preferred_to_PVH()
    {
        using GuestMemory memory = GuestMemory.Create(32 << 20);
        using BootFile file = ElfBuilder.File(ElfBuilder.Kernel(Code, pvhEntry: 0x100_0001));
        Assert.Equal(BootProtocol.Linux64, KernelLoader.Load(file, memory).Protocol);
    }

    [Theory]
    [InlineData(4, (byte)1, "not 64-bit")]
    [InlineData(5, (byte)2, "not little-endian")]
    [InlineData(18, (byte)3, "another processor")]
    [InlineData(16, (byte)1, "not an executable")]
    [InlineData(54, (byte)32, "not 56")]
    [InlineData(56, (byte)0, "0 ELF program headers")]
    [InlineData(33, (byte)0xff, "not inside the file")]
    [InlineData(64, (byte)9, "no PT_LOAD")]
    [InlineData(72 + 6, (byte)1, "not inside the file")]
    [InlineData(64 + 24 + 3, (byte)8, "give it more")]
    [InlineData(64 + 24 + 7, (byte)0xff, "give it more")]
    [InlineData(64 + 32 + 7, (byte)1, "more bytes in the file")]
    [InlineData(64 + 40 + 7, (byte)0xff, "give it more")]
    [InlineData(24 + 3, (byte)0x10, "in no loaded segment")]
    public void A_broken_rule_is_named_with_the_file(int offset, byte value, string rule)
    {
        byte[] elf = ElfBuilder.Kernel(Code);
        elf[offset] = value;
        using GuestMemory memory = GuestMemory.Create(32 << 20);
        using BootFile file = ElfBuilder.File(elf, "kernel /boot/x");
        BootException e = Assert.Throws<BootException>(() => KernelLoader.Load(file, memory));
        Assert.StartsWith("kernel /boot/x: ", e.Message, StringComparison.Ordinal);
        Assert.Contains(rule, e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_segment_below_one_MiB_is_refused()
    {
        using GuestMemory memory = GuestMemory.Create(32 << 20);
        using BootFile file = ElfBuilder.File(ElfBuilder.Kernel(Code, load: 0x7000));
        Assert.Contains("below 1 MiB", Assert.Throws<BootException>(() => KernelLoader.Load(file, memory)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Mutated_files_load_or_throw_the_documented_exception()
    {
        byte[] good = ElfBuilder.Kernel(Code, pvhEntry: 0x100_0001);
        int headers = 64 + (2 * 56);
        using GuestMemory memory = GuestMemory.Create(32 << 20);
        Gen<(int At, byte Value)> change =
            from at in Gen.Frequency((8, Gen.Choose(0, headers - 1)), (1, Gen.Choose(headers, good.Length - 1)))
            from value in Gen.OneOf(Gen.Choose(0, 255), Gen.Elements(0, 1, 0x7f, 0x80, 0xff))
            select (at, (byte)value);
        var mutations =
            from changes in change.ArrayOf(4)
            from length in Gen.Frequency((5, Gen.Constant(good.Length)), (1, Gen.Choose(0, good.Length)))
            select (changes, length);
        int loaded = 0;
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
                Assert.InRange(image.Entry, image.Start, image.End - 1);
                loaded++;
            }
            catch (BootException)
            {
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(2000));
        Assert.NotEqual(0, loaded);
    }

    [Fact]
    public void Random_notes_never_throw()
    {
        Gen<byte[]> notes = Gen.Choose(0, 40).SelectMany(n => Gen.Choose(0, 255).Select(b => (byte)b).ArrayOf(n));
        Prop.ForAll(notes.ToArbitrary(), n =>
        {
            _ = ElfNotes.TryFindPvhEntry(n, out _);
            byte[] valid = new byte[12 + n.Length];
            ElfFormat.NoteHeader header = new() { NameSize = 4, DescriptorSize = (uint)n.Length * 7, Type = 18 };
            MemoryMarshal.Write(valid, in header);
            _ = ElfNotes.TryFindPvhEntry(valid, out _);
        }).QuickCheckThrowOnFailure();
    }
}
