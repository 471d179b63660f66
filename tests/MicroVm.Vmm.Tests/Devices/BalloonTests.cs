using System.Buffers.Binary;
using FsCheck;
using FsCheck.Fluent;
using MicroVm.Linux.Native;
using MicroVm.Memory;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Vmm.Devices.Balloon;
using Xunit;

namespace MicroVm.Vmm.Tests.Devices;

public sealed class BalloonTests : IDisposable
{
    private const int Inflate = 0, Deflate = 1, Reporting = 2;
    private const int Page = GuestMemory.PageSize;
    private readonly BalloonDevice _device = new();
    private readonly GuestDriver _guest;

    public BalloonTests()
    {
        _guest = new GuestDriver(_device);
        _guest.Activate();
    }

    public void Dispose() => _guest.Dispose();

    [Fact]
    public void What_is_reported_goes_back_to_the_host()
    {
        const int Length = 4 << 20;
        ulong at = _guest.Allocate(Length, Page);
        _guest.Span(at, Length).Fill(0x5a);
        long before = HostBytes();
        Send(Reporting, new Segment(at, Length / 2, true), new Segment(at + (Length / 2), Length / 2, true));
        Assert.InRange(before - HostBytes(), Length, Length);
        Assert.Equal(-1, _guest.Span(at, Length).IndexOfAnyExcept((byte)0));
        Dictionary<string, long> counters = Counters();
        Assert.Equal((1L, (long)Length, 0L), (counters["balloon.reports"], counters["balloon.reported.bytes"], counters["balloon.errors"]));
    }

    [Fact]
    public void Of_pages_that_are_reported_in_part_nothing_goes_back()
    {
        ulong at = _guest.Allocate(3 * Page, Page);
        _guest.Span(at, 3 * Page).Fill(0x5a);
        Send(Reporting, new Segment(at + 1, (2 * Page) + 10, true), new Segment(at, 100, true), new Segment(at, 0, true));
        Assert.Equal(-1, _guest.Span(at, Page).IndexOfAnyExcept((byte)0x5a));
        Assert.Equal(-1, _guest.Span(at + Page, Page).IndexOfAnyExcept((byte)0));
        Assert.Equal(-1, _guest.Span(at + (2 * Page), Page).IndexOfAnyExcept((byte)0x5a));
    }

    [Fact]
    public void A_report_by_buffers_that_the_device_may_not_write_is_answered_and_changes_nothing()
    {
        ulong at = _guest.Allocate(Page, Page);
        _guest.Span(at, Page).Fill(0x5a);
        Send(Reporting, new Segment(at, Page, false));
        Assert.Equal(-1, _guest.Span(at, Page).IndexOfAnyExcept((byte)0x5a));
    }

    // Numbers of pages in any order, with runs and repetitions, against what the pages hold afterwards.
    [Fact]
    public void Pages_of_a_request_to_inflate_go_back_and_no_others()
    {
        const int Pages = 64;
        ulong at = _guest.Allocate(Pages * Page, Page), list = _guest.Allocate(1024 * sizeof(uint));
        Gen<int[]> numbers = from n in Gen.Choose(0, 700) from pages in Gen.Choose(0, Pages - 1).ArrayOf(n) from sort in Gen.Choose(0, 2) select (int[])(sort == 0 ? [.. pages.Order()] : pages);
        Prop.ForAll(numbers.ToArbitrary(), pages =>
        {
            _guest.Span(at, Pages * Page).Fill(0x5a);
            for (int i = 0; i < pages.Length; i++)
            {
                BinaryPrimitives.WriteUInt32LittleEndian(_guest.Span(list + ((ulong)i * sizeof(uint)), sizeof(uint)), (uint)((at / Page) + (ulong)pages[i]));
            }

            // The last number is cut off.
            uint length = (uint)(pages.Length * sizeof(uint));
            Send(Inflate, new Segment(list, length / 3, false), new Segment(list + (length / 3), length - (length / 3) + 3, false));
            for (int page = 0; page < Pages; page++)
            {
                Assert.Equal(-1, _guest.Span(at + ((ulong)page * Page), Page).IndexOfAnyExcept((byte)(pages.Contains(page) ? 0 : 0x5a)));
            }
        }).Check(Config.QuickThrowOnFailure.WithMaxTest(200));
        Assert.Equal(0, Counters()["balloon.errors"]);
    }

    [Theory]
    [InlineData(0x2000u)]
    [InlineData(0xffff_ffffu)]
    public void A_page_outside_of_memory_stops_the_device(uint page)
    {
        ulong list = _guest.Allocate(sizeof(uint));
        BinaryPrimitives.WriteUInt32LittleEndian(_guest.Span(list, sizeof(uint)), page);
        _guest.Queues[Inflate].Add(new Segment(list, sizeof(uint), false));
        _guest.Queues[Inflate].Notify();
        _guest.TurnUntil(() => _guest.NeedsReset is not null, "the device is stopped");
        Assert.Contains("5.5.6", _guest.NeedsReset, StringComparison.Ordinal);
    }

    [Fact]
    public void More_pages_than_one_request_may_have_stop_the_device()
    {
        uint length = (BalloonRequests.MaxInflatedPages * sizeof(uint)) + 1;
        _guest.Queues[Inflate].Add(new Segment(_guest.Allocate(length), length, false));
        _guest.Queues[Inflate].Notify();
        _guest.TurnUntil(() => _guest.NeedsReset is not null, "the device is stopped");
        Assert.Contains("16384 pages", _guest.NeedsReset, StringComparison.Ordinal);
    }

    [Fact]
    public void A_request_to_deflate_is_answered() => Send(Deflate, new Segment(_guest.Allocate(16), 16, false));

    [Fact]
    public void It_asks_for_no_pages_and_keeps_the_drivers_count_until_a_reset()
    {
        byte[] config = new byte[BalloonConfigSpace.Size + 8];
        config.AsSpan().Fill(0xee);
        _device.WriteConfig(0, [1, 2, 3, 4]);
        _device.WriteConfig(BalloonConfigSpace.ActualOffset, [1, 2, 3, 4]);
        _device.WriteConfig(BalloonConfigSpace.ActualOffset + 1, [9, 9, 9, 9]);
        _device.WriteConfig(12, [9, 9, 9, 9]);
        _device.ReadConfig(0, config);
        Assert.Equal(new byte[] { 0, 0, 0, 0, 1, 2, 3, 4 }, config[..8]);
        Assert.Equal(-1, config.AsSpan(8).IndexOfAnyExcept((byte)0));
        _guest.Reset();
        _device.ReadConfig(0, config);
        Assert.Equal(-1, config.AsSpan().IndexOfAnyExcept((byte)0));
    }

    [Fact]
    public void A_driver_that_did_not_take_reporting_has_no_such_queue()
    {
        using BalloonDevice device = new();
        using GuestDriver guest = new(device, features: 0);
        guest.Activate();
        ulong at = guest.Allocate(Page, Page);
        guest.Span(at, Page).Fill(0x5a);
        guest.Queues[Reporting].Add(new Segment(at, Page, true));
        guest.Queues[Reporting].Notify();
        guest.Queues[Deflate].Add(new Segment(at, 4, false));
        guest.Queues[Deflate].Notify();
        guest.TurnUntil(() => guest.Queues[Deflate].UsedCount == 1, "the deflate queue is served");
        Assert.Equal(0, guest.Queues[Reporting].UsedCount);
    }

    private void Send(int queue, params Segment[] chain)
    {
        _guest.Queues[queue].Add(chain);
        _guest.Queues[queue].Notify();
        _guest.TurnUntil(() => _guest.Queues[queue].UsedCount == 1, "the request is answered");
        Assert.True(_guest.Queues[queue].TryTakeUsed(out _, out uint written));
        Assert.Equal((0u, null), (written, _guest.NeedsReset));
    }

    private Dictionary<string, long> Counters()
    {
        Dictionary<string, long> counters = [];
        _device.CollectCounters(counters.Add);
        return counters;
    }

    private unsafe long HostBytes()
    {
        Libc.statx_t stat;
        byte empty = 0;
        Assert.Equal(0, Libc.statx(_guest.Memory.Backing.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_BASIC_STATS, &stat));
        return (long)stat.stx_blocks * 512;
    }
}
