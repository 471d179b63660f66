using MicroVm.Tests.Shared.Virtio;
using MicroVm.Vmm.Devices.Entropy;
using Xunit;

namespace MicroVm.Vmm.Tests.Devices;

public sealed class EntropyTests : IDisposable
{
    private readonly EntropyDevice _device = new();
    private readonly GuestDriver _guest;

    public EntropyTests()
    {
        _guest = new GuestDriver(_device);
        _guest.Activate();
        _guest.Turn();
    }

    public void Dispose()
    {
        _device.Dispose();
        _guest.Dispose();
    }

    [Fact]
    public void Fills_every_segment_with_different_bytes_and_nothing_else()
    {
        ulong at = _guest.Allocate(3000);
        _guest.Queues[0].Add(new Segment(at, 100, true), new Segment(at + 1000, 1000, true));
        _guest.Queues[0].Notify();
        _guest.Turn();
        Assert.True(_guest.Queues[0].TryTakeUsed(out _, out uint written));
        Assert.Equal(1100u, written);
        Assert.True(_guest.Span(at, 100).ToArray().Distinct().Count() > 20);
        Assert.True(_guest.Span(at + 1000, 1000).ToArray().Distinct().Count() > 200);
        Assert.Equal(-1, _guest.Span(at + 100, 900).IndexOfAnyExcept((byte)0));
        Assert.Equal(-1, _guest.Span(at + 2000, 1000).IndexOfAnyExcept((byte)0));
    }

    [Fact]
    public void Bounds_what_one_request_gets()
    {
        ulong at = _guest.Allocate(1 << 20);
        _guest.Queues[0].Add(new Segment(at, 1 << 20, true));
        _guest.Queues[0].Notify();
        _guest.Turn();
        Assert.True(_guest.Queues[0].TryTakeUsed(out _, out uint written));
        Assert.Equal((uint)EntropyDevice.MaxBytesPerRequest, written);
    }

    [Fact]
    public void Answers_a_request_without_room_with_nothing()
    {
        _guest.Queues[0].Add(new Segment(_guest.Allocate(10), 10, false));
        _guest.Queues[0].Notify();
        _guest.Turn();
        Assert.True(_guest.Queues[0].TryTakeUsed(out _, out uint written));
        Assert.Equal(0u, written);
    }

    [Fact]
    public void Takes_a_full_queue_in_turns_and_stops_at_a_broken_one()
    {
        ulong at = _guest.Allocate(64);
        for (int round = 0; round < 40; round++)
        {
            while (_guest.Queues[0].FreeDescriptors > 0)
            {
                _guest.Queues[0].Add(new Segment(at, 64, true));
            }

            _guest.Queues[0].Notify();
            _guest.Turn();
            Assert.Equal(16, _guest.Queues[0].UsedCount);
            while (_guest.Queues[0].TryTakeUsed(out _, out _))
            {
            }
        }

        _guest.Queues[0].AvailableRing[1] += 100;
        _guest.Queues[0].Kick.Signal();
        _guest.Turn();
        Assert.NotNull(_guest.NeedsReset);
        _guest.Reset();
        _guest.Activate();
        _guest.Queues[0].Add(new Segment(at, 64, true));
        _guest.Queues[0].Notify();
        _guest.Turn();
        Assert.Equal(1, _guest.Queues[0].UsedCount);
    }

    [Fact]
    public void Requests_allocate_nothing()
    {
        ulong at = _guest.Allocate(64);
        Cycle(100);
        long before = GC.GetAllocatedBytesForCurrentThread();
        Cycle(2000);
        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);

        void Cycle(int n)
        {
            for (int i = 0; i < n; i++)
            {
                _guest.Queues[0].Add(new Segment(at, 64, true));
                _guest.Queues[0].Notify();
                _guest.Turn();
                Assert.True(_guest.Queues[0].TryTakeUsed(out _, out _));
            }
        }
    }
}
