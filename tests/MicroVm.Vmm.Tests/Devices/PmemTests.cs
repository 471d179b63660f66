using System.Buffers.Binary;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Vmm.Devices.Pmem;
using MicroVm.Vmm.Tests.Boot;
using Xunit;

namespace MicroVm.Vmm.Tests.Devices;

public sealed unsafe class PmemTests : IDisposable
{
    private const ulong Gpa = 0x1_0020_0000;
    private readonly PmemDevice _device = new("pmem0", Image([1, 2, 3]), Gpa);
    private readonly GuestDriver _guest;

    public PmemTests()
    {
        _guest = new GuestDriver(_device);
        _guest.Activate();
        _guest.Turn();
    }

    public void Dispose() => _guest.Dispose();

    [Fact]
    public void Shows_where_it_lies_and_nothing_behind_its_config()
    {
        byte[] config = new byte[24];
        config.AsSpan().Fill(0xee);
        _device.ReadConfig(0, config);
        Assert.Equal((Gpa, 2ul << 20), (BinaryPrimitives.ReadUInt64LittleEndian(config), BinaryPrimitives.ReadUInt64LittleEndian(config.AsSpan(8))));
        Assert.Equal(-1, config.AsSpan(16).IndexOfAnyExcept((byte)0));
        _device.ReadConfig(uint.MaxValue, config);
        Assert.Equal(-1, config.AsSpan().IndexOfAnyExcept((byte)0));
    }

    [Theory]
    [InlineData(0u, 4u, 0u)]
    [InlineData(1u, 4u, uint.MaxValue)]
    [InlineData(0u, 3u, uint.MaxValue)]
    public void Answers_a_flush_and_refuses_the_rest(uint type, uint length, uint answer)
    {
        ulong at = _guest.Allocate(64);
        BinaryPrimitives.WriteUInt32LittleEndian(_guest.Span(at, 4), type);
        _guest.Queues[0].Add(new Segment(at, length, false), new Segment(at + 8, 16, true));
        _guest.Queues[0].Notify();
        _guest.Turn();
        Assert.True(_guest.Queues[0].TryTakeUsed(out _, out uint written));
        Assert.Equal((4u, answer), (written, BinaryPrimitives.ReadUInt32LittleEndian(_guest.Span(at + 8, 4))));
        Dictionary<string, long> counters = [];
        _device.CollectCounters(counters.Add);
        Assert.Equal(answer == 0 ? (1, 0) : (0, 1), (counters["pmem0.flushes"], counters["pmem0.errors"]));
    }

    [Fact]
    public void A_request_without_room_for_its_answer_stops_the_device()
    {
        ulong at = _guest.Allocate(64);
        _guest.Queues[0].Add(new Segment(at, 4, false), new Segment(at + 8, 3, true));
        _guest.Queues[0].Notify();
        _guest.Turn();
        Assert.Contains("5.19.6", _guest.NeedsReset, StringComparison.Ordinal);
    }

    [Fact]
    public void An_image_is_the_file_and_then_zeroes_up_to_a_whole_piece()
    {
        byte[] content = new byte[(2 << 20) + 5];
        Random.Shared.NextBytes(content);
        using FileImage image = Image(content);
        Assert.Equal(((ulong)content.Length, 4ul << 20, 0ul), (image.FileLength, image.Length, (ulong)image.Address % FileImage.Alignment));
        ReadOnlySpan<byte> mapped = new((void*)image.Address, (int)image.Length);
        Assert.True(mapped[..content.Length].SequenceEqual(content));
        Assert.Equal(-1, mapped[content.Length..].IndexOfAnyExcept((byte)0));
    }

    [Fact]
    public void What_is_no_file_or_is_empty_is_refused()
    {
        using SafeFd folder = SafeFd.From(Libc.open("/", Libc.O_RDONLY | Libc.O_CLOEXEC, 0), "open", "/");
        Assert.Throws<ArgumentException>(() => new FileImage(folder));
        Assert.Throws<ArgumentException>(() => Image([]));
    }

    private static FileImage Image(byte[] content)
    {
        using SafeFd file = ElfBuilder.Memfd(content);
        return new FileImage(file);
    }
}
