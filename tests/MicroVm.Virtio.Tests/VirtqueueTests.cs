using MicroVm.Linux;
using MicroVm.Memory;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Virtio.Tests.Mmio;

namespace MicroVm.Virtio.Tests;

/// <summary>The rules of split virtqueues (virtio 1.2, 2.7), one by one.</summary>
public sealed unsafe class VirtqueueTests : IDisposable
{
    private readonly FakeDevice _device = new() { QueueSizes = [16] };
    private readonly GuestDriver _guest;
    private readonly DescriptorChain _chain = new(64);
    private readonly DriverQueue _driver;
    private readonly Virtqueue _queue;

    public VirtqueueTests()
    {
        _guest = new GuestDriver(_device);
        _driver = _guest.Queues[0];
        _queue = _driver.MakeDeviceSide();
    }

    public void Dispose()
    {
        _chain.Dispose();
        _guest.Dispose();
        _device.Dispose();
    }

    [Fact]
    public void Pops_a_direct_chain_in_order_with_its_lengths()
    {
        ulong a = _guest.Allocate(100);
        ulong b = _guest.Allocate(200);
        ulong c = _guest.Allocate(300);
        _driver.Add(new Segment(a, 100, false), new Segment(b, 200, true), new Segment(c, 300, true));
        Assert.True(_driver.Notify());

        Assert.True(_queue.TryPop(_chain));
        Assert.Equal((1, 2, 100ul, 500ul), (_chain.ReadableCount, _chain.WritableCount, _chain.ReadableLength, _chain.WritableLength));
        Assert.True(_chain.Writable[1].iov_base == _guest.Memory.TryGetPointer(c, 300));
        Assert.False(_queue.TryPop(_chain));
        Assert.False(_queue.IsBroken);
    }

    [Fact]
    public void Pops_direct_descriptors_followed_by_an_indirect_one()
    {
        ulong at = _guest.Allocate(4096);
        Segment[] segments = [.. Enumerable.Range(0, 40).Select(i => new Segment(at + ((ulong)i * 16), 16, i >= 20))];
        _driver.AddIndirect(segments, direct: 2);
        _driver.Notify();
        Assert.True(_queue.TryPop(_chain));
        Assert.Equal((20, 20, 320ul), (_chain.ReadableCount, _chain.WritableCount, _chain.WritableLength));
    }

    [Fact]
    public void Write_flag_of_a_descriptor_that_refers_to_a_table_is_ignored()
    {
        ushort head = _driver.AddIndirect([new Segment(_guest.Allocate(16), 16, false)]);
        _driver.Table[head] = _driver.Table[head] with { Flags = Descriptor.FlagIndirect | Descriptor.FlagWrite };
        _driver.Notify();
        Assert.True(_queue.TryPop(_chain));
        Assert.Equal((1, 0), (_chain.ReadableCount, _chain.WritableCount));
    }

    public static TheoryData<string, Descriptor[]> BrokenTables()
    {
        const ushort Next = Descriptor.FlagNext, Write = Descriptor.FlagWrite, Indirect = Descriptor.FlagIndirect;
        ulong end = 32ul << 20;
        return new TheoryData<string, Descriptor[]>
        {
            { "loop", [new(0x1000, 16, Next, 1), new(0x1000, 16, Next, 0)] },
            { "next index", [new(0x1000, 16, Next, 16)] },
            { "next index", [new(0x1000, 16, Next, 0xffff)] },
            { "outside guest memory", [new(end, 1, 0, 0)] },
            { "outside guest memory", [new(end - 16, 17, 0, 0)] },
            { "outside guest memory", [new(ulong.MaxValue, 1, 0, 0)] },
            { "outside guest memory", [new(ulong.MaxValue - 15, 16, 0, 0)] },
            { "outside guest memory", [new(0x1000, uint.MaxValue, 0, 0)] },
            { "outside guest memory", [new(0xd000_0000, 16, 0, 0)] },
            { "readable descriptor after", [new(0x1000, 16, Next | Write, 1), new(0x1000, 16, 0, 0)] },
            { "NEXT set", [new(0x1000, 16, Next | Indirect, 1)] },
            { "multiple of 16", [new(0x1000, 0, Indirect, 0)] },
            { "multiple of 16", [new(0x1000, 17, Indirect, 0)] },
            { "multiple of 16", [new(0x1000, 0xffff_fff0, Indirect, 0)] },
            { "table is outside", [new(end - 16, 32, Indirect, 0)] },
            { "table is outside", [new(ulong.MaxValue - 7, 16, Indirect, 0)] },
        };
    }

    [Theory]
    [MemberData(nameof(BrokenTables))]
    public void Breaks_on_a_malformed_chain_and_takes_nothing_more(string reason, Descriptor[] table)
    {
        table.CopyTo(_driver.Table);
        _driver.Offer(0);
        _driver.Notify();
        Assert.False(_queue.TryPop(_chain));
        Assert.True(_queue.IsBroken);
        Assert.Contains(reason, _queue.BrokenReason, StringComparison.Ordinal);

        // What is right afterwards does not help any more.
        _driver.Clear();
        _driver.Add(new Segment(0x1000, 16, true));
        _driver.Notify();
        Assert.False(_queue.TryPop(_chain));
        Assert.Equal(0, _queue.Pending());
        Assert.True(_queue.ReportIfBroken(_guest));
        Assert.Equal(_queue.BrokenReason, _guest.NeedsReset);
    }

    [Fact]
    public void Breaks_on_a_table_within_a_table()
    {
        ulong inner = _guest.Allocate(16, 16);
        Assert.True(_guest.Memory.TryWrite(inner, new Descriptor(0x1000, 16, Descriptor.FlagIndirect, 0)));
        _driver.Table[0] = new Descriptor(inner, 16, Descriptor.FlagIndirect, 0);
        _driver.Offer(0);
        _driver.Notify();
        Assert.False(_queue.TryPop(_chain));
        Assert.Contains("nested", _queue.BrokenReason, StringComparison.Ordinal);
    }

    [Fact]
    public void Breaks_on_an_indirect_descriptor_that_was_not_negotiated()
    {
        Virtqueue? queue = Virtqueue.TryCreate(
            _guest.Memory, _driver.Layout, 16, 0, eventIndex: true, indirect: false, _driver.Kick, out _);
        _driver.AddIndirect([new Segment(_guest.Allocate(16), 16, false)]);
        _driver.Notify();
        Assert.False(queue!.TryPop(_chain));
        Assert.True(queue.IsBroken);
    }

    [Theory]
    [InlineData(17)]
    [InlineData(0x8000)]
    [InlineData(0xffff)]
    public void Breaks_when_the_available_index_jumps(ushort index)
    {
        _driver.AvailableRing[1] = index;
        Assert.False(_queue.TryPop(_chain));
        Assert.Contains("available index", _queue.BrokenReason, StringComparison.Ordinal);
    }

    [Fact]
    public void Breaks_when_an_available_entry_is_no_descriptor()
    {
        _driver.Offer(16);
        _driver.Notify();
        Assert.False(_queue.TryPop(_chain));
        Assert.Contains("entry", _queue.BrokenReason, StringComparison.Ordinal);
    }

    [Fact]
    public void Breaks_on_a_chain_longer_than_the_device_takes()
    {
        using DescriptorChain small = new(2);
        ulong at = _guest.Allocate(64);
        _driver.Add(new Segment(at, 8, true), new Segment(at, 8, true), new Segment(at, 8, true));
        _driver.Notify();
        Assert.False(_queue.TryPop(small));
        Assert.Contains("more segments", _queue.BrokenReason, StringComparison.Ordinal);
    }

    [Fact]
    public void An_undone_pop_is_popped_again()
    {
        ushort head = _driver.Add(new Segment(_guest.Allocate(8), 8, true));
        _driver.Notify();
        Assert.True(_queue.TryPop(_chain));
        _queue.UndoPop();
        Assert.Equal(1, _queue.Pending());
        Assert.True(_queue.TryPop(_chain));
        Assert.Equal(head, _chain.Head);
    }

    [Fact]
    public void Indices_wrap_over_65536_requests_and_interrupts_follow_the_used_event()
    {
        ulong at = _guest.Allocate(8);
        for (int i = 0; i < 70_000; i++)
        {
            ushort head = _driver.Add(new Segment(at, 8, true));
            _driver.Notify();
            Assert.True(_queue.TryPop(_chain));
            _queue.PushUsed(_chain.Head, 8);
            Assert.True(_queue.Publish());
            Assert.True(_driver.TryTakeUsed(out ushort used, out uint written));
            Assert.Equal((head, 8u), (used, written));
        }
    }

    [Fact]
    public void Publish_interrupts_once_when_the_used_event_lies_within_the_batch()
    {
        ulong at = _guest.Allocate(8);
        Finish(1, at);
        Assert.True(_queue.Publish()); // the first after activation, always
        while (_driver.TryTakeUsed(out _, out _))
        {
        }

        _driver.SetUsedEvent(5);
        Finish(4, at);
        Assert.False(_queue.Publish()); // used index 5: entry 5 is not written yet
        Finish(1, at);
        Assert.True(_queue.Publish());
        Finish(1, at);
        Assert.False(_queue.Publish());
        Assert.False(_queue.Publish());
    }

    [Fact]
    public void Nothing_pushed_is_nothing_to_interrupt_for()
    {
        Assert.False(_queue.Publish());
        Finish(1, _guest.Allocate(8));
        Assert.True(_queue.Publish());
        Assert.False(_queue.Publish());
    }

    [Fact]
    public void Without_event_index_flags_suppress_both_ways()
    {
        using FakeDevice device = new() { QueueSizes = [16] };
        using GuestDriver guest = new(device, eventIndex: false);
        DriverQueue driver = guest.Queues[0];
        Virtqueue queue = driver.MakeDeviceSide();
        ulong at = guest.Allocate(8);
        queue.DisableNotifications();
        driver.Add(new Segment(at, 8, true));
        Assert.False(driver.Notify());
        Assert.True(queue.EnableNotifications());
        driver.Add(new Segment(at, 8, true));
        Assert.True(driver.Notify());

        driver.SuppressInterrupts(true);
        Assert.True(queue.TryPop(_chain));
        queue.PushUsed(_chain.Head, 0);
        Assert.False(queue.Publish());
        driver.SuppressInterrupts(false);
        Assert.True(queue.TryPop(_chain));
        queue.PushUsed(_chain.Head, 0);
        Assert.True(queue.Publish());
    }

    [Fact]
    public void Enabling_notifications_tells_of_what_came_meanwhile()
    {
        Assert.False(_queue.EnableNotifications());
        _driver.Add(new Segment(_guest.Allocate(8), 8, true));
        Assert.True(_driver.Notify());
        Assert.True(_queue.EnableNotifications());
        _queue.DisableNotifications();
        _driver.Add(new Segment(_guest.Allocate(8), 8, true));
        Assert.False(_driver.Notify() && _queue.Pending() == 0);
    }

    [Theory]
    [InlineData(0, 0x1000, 0x2000, 0x3000)]
    [InlineData(3, 0x1000, 0x2000, 0x3000)]
    [InlineData(32, 0x1000, 0x2000, 0x3000)]
    [InlineData(16, 0x1008, 0x2000, 0x3000)]
    [InlineData(16, 0x1000, 0x2001, 0x3000)]
    [InlineData(16, 0x1000, 0x2000, 0x3002)]
    [InlineData(16, 0x200_0000, 0x2000, 0x3000)]
    [InlineData(16, 0x1000, 0x1ff_fffe, 0x3000)]
    [InlineData(16, 0x1000, 0x2000, 0xffff_ffff_ffff_fffc)]
    public void Refuses_a_layout_that_breaks_a_rule(ushort size, ulong table, ulong avail, ulong used)
    {
        Virtqueue? queue = Virtqueue.TryCreate(
            _guest.Memory, new VirtqueueLayout(size, table, avail, used), 16, 0, true, true, _driver.Kick, out string? reason);
        Assert.Null(queue);
        Assert.NotNull(reason);
    }

    [Fact]
    public void Popping_and_pushing_allocates_nothing()
    {
        ulong at = _guest.Allocate(8192);
        Segment[] segments = [.. Enumerable.Range(0, 12).Select(i => new Segment(at + ((ulong)i * 512), 512, i > 3))];
        Cycle(100);
        long before = GC.GetAllocatedBytesForCurrentThread();
        Cycle(5000);
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);

        void Cycle(int n)
        {
            for (int i = 0; i < n; i++)
            {
                _driver.Add(segments.AsSpan(0, 4));
                _driver.AddIndirect(segments, direct: 1);
                _driver.Notify();
                while (_queue.TryPop(_chain))
                {
                    _queue.PushUsed(_chain.Head, 1);
                }

                _ = _queue.Publish();
                while (_driver.TryTakeUsed(out _, out _))
                {
                }

                _ = _queue.EnableNotifications();
            }
        }
    }

    private void Finish(int n, ulong at)
    {
        for (int i = 0; i < n; i++)
        {
            _driver.Add(new Segment(at, 8, true));
        }

        _driver.Notify();
        while (_queue.TryPop(_chain))
        {
            _queue.PushUsed(_chain.Head, 0);
        }
    }
}
