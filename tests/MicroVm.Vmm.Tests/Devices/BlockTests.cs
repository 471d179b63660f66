using System.Runtime.InteropServices;
using System.Security.Cryptography;
using FsCheck;
using FsCheck.Fluent;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Vmm.Devices.Block;
using Xunit;

namespace MicroVm.Vmm.Tests.Devices;

public sealed class BlockTests
{
    private const uint In = 0, Out = 1, Flush = 4, GetId = 8, Discard = 11, WriteZeroes = 13;
    private const byte Ok = 0, IoError = 1, Unsupported = 2, NotWritten = 0xff;
    private const int Sectors = 256;

    [Theory]
    [InlineData(1, false)]
    [InlineData(5, false)]
    [InlineData(100, true)]
    public void Reads_and_writes_whatever_the_segments(int pieces, bool indirect)
    {
        byte[] content = RandomNumberGenerator.GetBytes(Sectors * 512);
        using BlockGuest guest = new(content);
        Assert.Equal((Ok, 8193u), guest.Request(In, 3, 8192, toGuest: true, pieces, indirect));
        Assert.True(content.AsSpan(3 * 512, 8192).SequenceEqual(guest.Data(8192)));

        RandomNumberGenerator.Fill(guest.Data(8192));
        Assert.Equal((Ok, 1u), guest.Request(Out, 10, 8192, toGuest: false, pieces, indirect));
        guest.Data(8192).CopyTo(content.AsSpan(10 * 512));
        Assert.Equal(content, guest.Content);
    }

    [Fact]
    public void Configuration_tells_size_and_limits()
    {
        using BlockGuest guest = new(new byte[(Sectors * 512) + 100]);
        byte[] config = new byte[100];
        guest.Device.ReadConfig(0, config);
        Assert.Equal((ulong)Sectors, MemoryMarshal.Read<ulong>(config));
        Assert.Equal(126u, MemoryMarshal.Read<uint>(config.AsSpan(12)));
        Assert.Equal(512u, MemoryMarshal.Read<uint>(config.AsSpan(20)));
        byte[] part = new byte[4];
        guest.Device.ReadConfig(12, part);
        Assert.Equal(config.AsSpan(12, 4).ToArray(), part);
        guest.Device.ReadConfig(uint.MaxValue, part);
        Assert.Equal(new byte[4], part);
    }

    [Theory]
    [InlineData(Sectors, 512)]
    [InlineData(Sectors - 1, 1024)]
    [InlineData(ulong.MaxValue, 512)]
    [InlineData(ulong.MaxValue / 512, 512)]
    [InlineData((ulong.MaxValue / 512) + 1, 512)]
    [InlineData(1ul << 55, 1024)]
    [InlineData(0, 511)]
    [InlineData(0, 1)]
    public void Requests_beyond_the_capacity_or_off_sectors_fail_and_change_nothing(ulong sector, int length)
    {
        byte[] content = RandomNumberGenerator.GetBytes(Sectors * 512);
        using BlockGuest guest = new(content);
        Assert.Equal(IoError, guest.Request(Out, sector, length, toGuest: false).Status);
        Assert.Equal((IoError, 0u), guest.Request(In, sector, length, toGuest: true));
        Assert.Equal(content, guest.Content);
        Assert.Equal(2, guest.Counter("blk0.errors"));
    }

    [Fact]
    public void Read_only_disk_refuses_every_change()
    {
        byte[] content = RandomNumberGenerator.GetBytes(Sectors * 512);
        using BlockGuest guest = new(content, readOnly: true);
        Assert.Equal(1ul << 5, guest.Device.DeviceFeatures & ((1ul << 5) | (1ul << 13) | (1ul << 14)));
        Assert.Equal(IoError, guest.Request(Out, 0, 512, toGuest: false).Status);
        Assert.Equal(IoError, Range(guest, Discard, 0, 1));
        Assert.Equal(IoError, Range(guest, WriteZeroes, 0, 1));
        Assert.Equal(Ok, guest.Request(Flush, 0, 0, toGuest: false).Status);
        Assert.Equal(Ok, guest.Request(In, 0, 512, toGuest: true).Status);
        Assert.Equal(content, guest.Content);
    }

    [Fact]
    public void Id_is_padded_with_zeroes()
    {
        using BlockGuest guest = new(new byte[512], id: "serial-9");
        guest.Data(20).Fill(0xaa);
        Assert.Equal((Ok, 21u), guest.Request(GetId, 0, 20, toGuest: true));
        Assert.Equal("serial-9\0\0\0\0\0\0\0\0\0\0\0\0", System.Text.Encoding.ASCII.GetString(guest.Data(20)));
        Assert.Equal(IoError, guest.Request(GetId, 0, 19, toGuest: true).Status);
        Assert.Throws<ArgumentException>(() => new BlockGuest(new byte[512], id: new string('x', 21)));
    }

    [SkippableFact]
    public void Discard_and_write_zeroes_make_zeroes()
    {
        byte[] content = RandomNumberGenerator.GetBytes(Sectors * 512);
        using BlockGuest guest = new(content);
        byte discarded = Range(guest, Discard, 8, 16);
        Skip.If(discarded == Unsupported, "the temporary directory's file system cannot punch holes");
        Assert.Equal(Ok, discarded);
        Assert.Equal(Ok, Range(guest, WriteZeroes, 40, 3));
        Assert.Equal(Ok, Range(guest, WriteZeroes, 50, 3, flags: 1));
        content.AsSpan(8 * 512, 16 * 512).Clear();
        content.AsSpan(40 * 512, 3 * 512).Clear();
        content.AsSpan(50 * 512, 3 * 512).Clear();
        Assert.Equal(content, guest.Content);
    }

    [Theory]
    [InlineData(Discard, 0ul, 1u, 1u, Unsupported)]
    [InlineData(Discard, 0ul, 1u, 2u, Unsupported)]
    [InlineData(WriteZeroes, 0ul, 1u, 2u, Unsupported)]
    [InlineData(WriteZeroes, 0ul, 1u, 0xffffffffu, Unsupported)]
    [InlineData(Discard, Sectors, 1u, 0u, IoError)]
    [InlineData(Discard, 0ul, uint.MaxValue, 0u, IoError)]
    [InlineData(WriteZeroes, 0ul, Sectors + 1u, 0u, IoError)]
    [InlineData(WriteZeroes, ulong.MaxValue, 2u, 0u, IoError)]
    [InlineData(WriteZeroes, 5ul, 0u, 0u, Ok)]
    public void Ranges_are_checked(uint type, ulong sector, uint sectors, uint flags, byte status)
    {
        byte[] content = RandomNumberGenerator.GetBytes(Sectors * 512);
        using BlockGuest guest = new(content);
        Assert.Equal(status, Range(guest, type, sector, sectors, flags));
        Assert.Equal(content, guest.Content);
    }

    [Theory]
    [InlineData(Discard, 0)]
    [InlineData(Discard, 15)]
    [InlineData(Discard, 17 * 16)]
    [InlineData(WriteZeroes, 32)]
    public void Range_lists_of_a_wrong_length_fail(uint type, int length)
    {
        using BlockGuest guest = new(new byte[512]);
        guest.Data(length + 1).Clear();
        Assert.Equal(IoError, guest.Request(type, 0, length, toGuest: false).Status);
    }

    [Theory]
    [InlineData(2u)]
    [InlineData(3u)]
    [InlineData(10u)]
    [InlineData(14u)]
    [InlineData(uint.MaxValue)]
    public void Unknown_types_are_unsupported(uint type)
    {
        using BlockGuest guest = new(new byte[512]);
        Assert.Equal(Unsupported, guest.Request(type, 0, 512, toGuest: true).Status);
    }

    [Fact]
    public void Truncated_header_fails_and_missing_status_breaks_the_queue()
    {
        using BlockGuest guest = new(new byte[512]);
        Segment header = guest.Header(In, 0);
        Assert.Equal(IoError, guest.Raw([header with { Length = 15 }, guest.Status]).Status);
        Assert.Equal(IoError, guest.Raw([guest.Status]).Status);
        Assert.Equal(NotWritten, guest.Raw([header]).Status);
        Assert.Contains("5.2.6", guest.Driver.NeedsReset, StringComparison.Ordinal);
        guest.Driver.Reset();
        guest.Driver.Activate();
        Assert.Equal(Ok, guest.Request(In, 0, 512, toGuest: true).Status);
    }

    [Fact]
    public void Header_and_status_may_lie_in_pieces()
    {
        byte[] content = RandomNumberGenerator.GetBytes(1024);
        using BlockGuest guest = new(content);
        Segment header = guest.Header(In, 1);
        Assert.Equal((Ok, 513u), guest.Raw([
            header with { Length = 5 }, new Segment(header.Gpa + 5, 11, false), guest.DataSegment(512, true), guest.Status]));
        Assert.True(content.AsSpan(512).SequenceEqual(guest.Data(512)));
    }

    [Fact]
    public void File_truncated_behind_our_back_is_an_error_not_a_crash()
    {
        using BlockGuest guest = new(new byte[Sectors * 512]);
        guest.Truncate(1024);
        Assert.Equal((IoError, 0u), guest.Request(In, 1, 2048, toGuest: true));
        Assert.Equal(Ok, guest.Request(In, 1, 512, toGuest: true).Status);
    }

    [Fact]
    public void Driver_that_does_not_flush_gets_every_write_through()
    {
        using BlockGuest guest = new(new byte[Sectors * 512], features: 0);
        Assert.Equal(Ok, guest.Request(Out, 0, 512, toGuest: false).Status);
        Assert.Equal(1, guest.Counter("blk0.writes"));
    }

    [Fact]
    public void Directory_is_no_disk()
    {
        using SafeFd directory = SafeFd.From(
            Libc.openat(Libc.AT_FDCWD, "/", Libc.O_RDONLY | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open");
        ArgumentException e = Assert.Throws<ArgumentException>(() => new BlockDevice("blk3", directory, true, ""));
        Assert.Contains("blk3", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Random_requests_do_what_they_do_to_a_byte_array()
    {
        byte[] model = RandomNumberGenerator.GetBytes(Sectors * 512);
        using BlockGuest guest = new(model);
        Gen<(uint Type, ulong Sector, int Length, int Pieces, bool Indirect, bool Odd)> requests =
            from type in Gen.Elements(In, In, Out, Out, Flush, WriteZeroes, GetId, 99u)
            from sector in Gen.Frequency(
                (8, Gen.Choose(0, Sectors).Select(s => (ulong)s)), (1, Gen.Choose(0, 100).Select(s => ulong.MaxValue - (ulong)s)))
            from length in Gen.Choose(0, 64)
            from pieces in Gen.Choose(1, 20)
            from indirect in Gen.Elements(true, false)
            from odd in Gen.Frequency((9, Gen.Constant(false)), (1, Gen.Constant(true)))
            select (type, sector, length * 512, pieces, indirect, odd);
        Prop.ForAll(requests.ToArbitrary(), r =>
        {
            int length = r.Length + (r.Odd ? 1 : 0);
            bool fits = !r.Odd && r.Sector <= Sectors && r.Length / 512 <= (int)(Sectors - r.Sector);
            RandomNumberGenerator.Fill(guest.Data(length));
            int offset = fits ? (int)r.Sector * 512 : 0;
            switch (r.Type)
            {
                case In:
                    Assert.Equal(fits ? Ok : IoError, guest.Request(In, r.Sector, length, true, r.Pieces, r.Indirect).Status);
                    Assert.True(!fits || model.AsSpan(offset, length).SequenceEqual(guest.Data(length)));
                    break;
                case Out:
                    Assert.Equal(fits ? Ok : IoError, guest.Request(Out, r.Sector, length, false, r.Pieces, r.Indirect).Status);
                    if (fits)
                    {
                        guest.Data(length).CopyTo(model.AsSpan(offset));
                    }

                    break;
                case WriteZeroes:
                    Assert.Equal(fits ? Ok : IoError, Range(guest, WriteZeroes, r.Sector, (uint)r.Length / 512 + (r.Odd ? Sectors + 1u : 0)));
                    if (fits)
                    {
                        model.AsSpan(offset, r.Length).Clear();
                    }

                    break;
                case Flush:
                    Assert.Equal(Ok, guest.Request(Flush, r.Sector, 0, false).Status);
                    break;
                case GetId:
                    Assert.Equal(length >= 20 ? Ok : IoError, guest.Request(GetId, 0, length, true, r.Pieces, r.Indirect).Status);
                    break;
                default:
                    Assert.Equal(Unsupported, guest.Request(r.Type, r.Sector, length, true).Status);
                    break;
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(600));
        Assert.Equal(model, guest.Content);
        Assert.Null(guest.Driver.NeedsReset);
    }

    [Fact]
    public void Requests_allocate_nothing_on_the_disks_thread()
    {
        // Of the whole process: the worker is another thread. Others that allocate (the test runner) are few and small.
        byte[] content = new byte[Sectors * 512];
        using BlockGuest guest = new(content);
        long least = long.MaxValue;
        Run(200);
        for (int i = 0; i < 20 && least >= 1000; i++)
        {
            long before = GC.GetTotalAllocatedBytes(precise: true);
            Run(1000);
            least = Math.Min(least, GC.GetTotalAllocatedBytes(precise: true) - before);
        }

        Assert.True(least < 1000, $"1000 requests allocated {least} bytes");

        void Run(int count)
        {
            for (int i = 0; i < count; i++)
            {
                bool write = i % 2 == 0;
                Segment header = guest.Header(write ? Out : In, (ulong)(i % 64));
                Assert.True(guest.Raw([header, guest.DataSegment(4096, !write), guest.Status]).Status == Ok);
            }
        }
    }

    private static byte Range(BlockGuest guest, uint type, ulong sector, uint sectors, uint flags = 0)
    {
        Span<byte> range = guest.Data(16);
        MemoryMarshal.Write(range, sector);
        MemoryMarshal.Write(range[8..], sectors);
        MemoryMarshal.Write(range[12..], flags);
        return guest.Request(type, 0, 16, toGuest: false).Status;
    }
}
