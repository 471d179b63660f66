using FsCheck;
using FsCheck.Fluent;
using MicroVm.Linux;

namespace MicroVm.Memory.Tests;

public sealed unsafe class GuestMemoryTests
{
    private const ulong GiB = 1ul << 30;
    private const ulong PageOfTwo = 2 * GuestMemory.PageSize;

    private static readonly Gen<ulong> Numbers = Gen.OneOf(
        Gen.Elements(0ul, 1ul, 4096ul, 3 * GiB, 4 * GiB, 5 * GiB, 1ul << 63, ulong.MaxValue)
            .SelectMany(b => Gen.Choose(-3, 3).Select(d => unchecked(b + (ulong)(long)d))),
        Gen.Choose(0, int.MaxValue).Select(n => (ulong)n),
        Gen.Choose(0, int.MaxValue).Select(n => (ulong)n * 5));

    [Fact]
    public void A_range_is_given_exactly_when_every_byte_is_in_one_region()
    {
        // 4 GiB: [0, 3 GiB) and [4 GiB, 5 GiB). Nothing of it is touched.
        using GuestMemory memory = GuestMemory.Create(4 * GiB);
        byte* low = memory.TryGetPointer(0, 1);
        Gen<(ulong Gpa, ulong Length)> ranges = from gpa in Numbers from length in Numbers select (gpa, length);
        Prop.ForAll(ranges.ToArbitrary(), r =>
        {
            UInt128 end = (UInt128)r.Gpa + r.Length;
            bool inLow = r.Gpa < 3 * GiB && end <= 3 * GiB;
            bool inHigh = r.Gpa >= 4 * GiB && r.Gpa < 5 * GiB && end <= 5 * GiB;
            byte* p = memory.TryGetPointer(r.Gpa, r.Length);
            Assert.Equal(inLow || inHigh, p is not null);
            Assert.Equal(inLow || inHigh, memory.Contains(r.Gpa, r.Length));
            if (p is not null)
            {
                Assert.Equal(r.Gpa - (inHigh ? GiB : 0), (ulong)(p - low));
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(5000));
    }

    [Fact]
    public void Values_round_trip_and_reach_no_further_than_the_end()
    {
        using GuestMemory memory = GuestMemory.Create(1 << 20);
        Assert.True(memory.TryWrite((1 << 20) - 8, 0x1122_3344_5566_7788ul));
        Assert.True(memory.TryRead((1 << 20) - 8, out ulong value));
        Assert.Equal(0x1122_3344_5566_7788ul, value);
        Assert.False(memory.TryWrite((1 << 20) - 7, 0ul));
        Assert.False(memory.TryRead((1 << 20) - 7, out value));
        Assert.False(memory.TryGetSpan(0, (1 << 20) + 1, out Span<byte> span));
        Assert.True(span.IsEmpty);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(4095)]
    public void Sizes_that_are_no_pages_are_refused(ulong size) =>
        Assert.ThrowsAny<ArgumentOutOfRangeException>(() => GuestMemory.Create(size));

    [Fact]
    public void Pages_of_a_file_take_the_place_of_RAM_copy_on_write()
    {
        byte[] content = new byte[3 * GuestMemory.PageSize];
        Random.Shared.NextBytes(content);
        using SafeFd file = MemoryFile.Create("test", content);
        using GuestMemory memory = GuestMemory.Create(16 << 20);
        Assert.False(memory.TryMapFile(0x1001, file, 0, GuestMemory.PageSize));
        Assert.False(memory.TryMapFile(0x1000, file, 1, GuestMemory.PageSize));
        Assert.False(memory.TryMapFile(0x1000, file, 0, 0));
        Assert.False(memory.TryMapFile((16 << 20) - GuestMemory.PageSize, file, 0, 2 * GuestMemory.PageSize));
        Assert.True(memory.TryWrite(0x5000, 0x55));
        Assert.True(memory.TryMapFile(0x3000, file, GuestMemory.PageSize, 2 * GuestMemory.PageSize));
        byte[] seen = new byte[3 * GuestMemory.PageSize];
        Assert.True(memory.TryRead(0x3000, seen));
        Assert.True(seen.AsSpan(0, 2 * GuestMemory.PageSize).SequenceEqual(content.AsSpan(GuestMemory.PageSize)));
        Assert.Equal(0x55, seen[2 * GuestMemory.PageSize]);
        Assert.True(memory.TryWrite(0x3000, ~content[GuestMemory.PageSize]));
        using GuestMemory other = GuestMemory.Create(16 << 20);
        Assert.True(other.TryMapFile(0, file, GuestMemory.PageSize, GuestMemory.PageSize));
        Assert.True(other.TryRead(0, out byte first));
        Assert.Equal(content[GuestMemory.PageSize], first);
    }

    // 16 pages, of which some are a file's; every page is written, and a range of any bytes is given back.
    [Fact]
    public void Whole_pages_are_given_back_as_what_they_are()
    {
        const int Pages = 16, Length = Pages * GuestMemory.PageSize;
        byte[] content = new byte[Length];
        Random.Shared.NextBytes(content);
        using SafeFd file = MemoryFile.Create("test", content);
        Gen<(int[] Pieces, int Start, int Bytes)> cases =
            from pieces in Gen.Choose(0, (Pages * Pages) - 1).ArrayOf(4)
            from start in Gen.Choose(0, Length)
            from bytes in Gen.Choose(0, Length)
            select (pieces, start, Math.Min(bytes, Length - start));
        Prop.ForAll(cases.ToArbitrary(), c =>
        {
            using GuestMemory memory = GuestMemory.Create(Length);
            bool[] isFile = new bool[Pages];
            foreach (int piece in c.Pieces)
            {
                int first = piece / Pages, count = Math.Min((piece % Pages / 2) + 1, Pages - first);
                ulong at = (ulong)first * GuestMemory.PageSize;
                Assert.True(memory.TryMapFile(at, file, at, (ulong)count * GuestMemory.PageSize));
                isFile.AsSpan(first, count).Fill(true);
            }

            byte* ram = memory.TryGetPointer(0, Length);
            new Span<byte>(ram, Length).Fill(0xa5);
            Assert.True(memory.TryRelease(ram + c.Start, (ulong)c.Bytes, out ulong released));
            int firstPage = (c.Start + GuestMemory.PageSize - 1) / GuestMemory.PageSize, endPage = (c.Start + c.Bytes) / GuestMemory.PageSize;
            Assert.Equal((ulong)Math.Max(0, endPage - firstPage) * GuestMemory.PageSize, released);
            byte[] kept = new byte[GuestMemory.PageSize], zeroes = new byte[GuestMemory.PageSize];
            kept.AsSpan().Fill(0xa5);
            for (int page = 0; page < Pages; page++)
            {
                byte[] expected = page < firstPage || page >= endPage ? kept
                    : isFile[page] ? content[(page * GuestMemory.PageSize)..((page + 1) * GuestMemory.PageSize)]
                    : zeroes;
                Assert.True(new ReadOnlySpan<byte>(ram + (page * GuestMemory.PageSize), GuestMemory.PageSize).SequenceEqual(expected), $"page {page}");
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(300));

        // No VM's pages are the file's own.
        byte[] after = new byte[Length];
        Assert.Equal(Length, RandomAccess.Read(new Microsoft.Win32.SafeHandles.SafeFileHandle(file.Value, ownsHandle: false), after, 0));
        Assert.Equal(content, after);
    }

    [Fact]
    public void Nothing_outside_of_RAM_and_no_huge_page_is_given_back()
    {
        const ulong Length = 1 << 20;
        using GuestMemory memory = GuestMemory.Create(Length);
        byte* ram = memory.TryGetPointer(0, Length);
        Assert.False(memory.TryRelease(ram - 1, 1, out _));
        Assert.False(memory.TryRelease(ram - GuestMemory.PageSize, GuestMemory.PageSize, out _));
        Assert.False(memory.TryRelease(ram, Length + 1, out _));
        Assert.False(memory.TryRelease(ram + 1, Length, out _));
        Assert.False(memory.TryRelease(ram + 1, ulong.MaxValue, out _));
        Assert.False(memory.TryRelease(ram + Length + 1, 0, out _));
        Assert.False(memory.TryRelease(null, Length, out _));
        Assert.True(memory.TryRelease(ram + Length, 0, out ulong released));
        Assert.Equal(0ul, released);
    }

    [Fact]
    public void RAM_is_added_from_what_was_reserved_and_given_back()
    {
        const ulong Gpa = 4 * GiB, MiB = 1 << 20;
        using GuestMemory memory = GuestMemory.Create(MiB);
        Assert.Equal(0ul, memory.Reserved.Length);
        memory.Reserve(Gpa, 8 * MiB);
        Assert.False(memory.Contains(Gpa, 0));
        Assert.Throws<IOException>(() => memory.Grow(2 * MiB, _ => throw new IOException("the host has no slot")));
        Assert.Equal((false, 0ul), (memory.Contains(Gpa, 1), memory.Grown));
        List<GuestRegion> shown = [];
        memory.Grow(2 * MiB, shown.Add);
        memory.Grow(5 * MiB, shown.Add);
        Assert.Equal([(Gpa, 2 * MiB), (Gpa + (2 * MiB), 3 * MiB)], shown.Select(r => (r.Gpa, r.Length)));
        Assert.Equal(2, memory.Regions.Length);
        Assert.True(memory.Contains(Gpa, 5 * MiB));
        Assert.False(memory.Contains(Gpa, (5 * MiB) + 1));
        Assert.False(memory.Contains(Gpa - 1, 2));
        Assert.Throws<ArgumentOutOfRangeException>(() => memory.Grow(5 * MiB, shown.Add));
        Assert.Throws<ArgumentOutOfRangeException>(() => memory.Grow(9 * MiB, shown.Add));
        Assert.Throws<ArgumentOutOfRangeException>(() => memory.Reserve(8 * GiB, MiB));

        Assert.True(memory.TryWrite(Gpa + (2 * MiB) - 4, 0x1122_3344_5566_7788ul));
        byte* p = memory.TryGetPointer(Gpa, 5 * MiB);
        Assert.Equal(shown[1].Hva, (nint)(p + (2 * MiB)));
        Assert.True(memory.TryRelease(p + MiB, MiB, out ulong released));
        Assert.Equal(MiB, released);
        Assert.True(memory.TryRead(Gpa + (2 * MiB) - 4, out ulong value));
        Assert.Equal(0x1122_3344ul << 32, value & (0xffff_fffful << 32));
        Assert.Equal(0ul, value << 32);
        Assert.True(memory.TryRelease(p + 1, PageOfTwo, out released));
        Assert.Equal((ulong)GuestMemory.PageSize, released);
        Assert.False(memory.TryRelease(p + (4 * MiB), 5 * MiB, out _));
    }

    [Fact]
    public void RAM_that_is_a_copy_of_a_file_is_the_file_again()
    {
        byte[] content = new byte[4 * GuestMemory.PageSize];
        Random.Shared.NextBytes(content);
        using GuestMemory memory = GuestMemory.FromFile(MemoryFile.Create("test", content), (ulong)content.Length, copyOnWrite: true);
        byte* ram = memory.TryGetPointer(0, (ulong)content.Length);
        new Span<byte>(ram, content.Length).Clear();
        Assert.True(memory.TryRelease(ram, (ulong)content.Length, out _));
        Assert.True(new ReadOnlySpan<byte>(ram, content.Length).SequenceEqual(content));
    }
}
