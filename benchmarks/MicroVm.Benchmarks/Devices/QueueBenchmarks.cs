using BenchmarkDotNet.Attributes;
using MicroVm.Tests.Shared.Virtio;
using MicroVm.Virtio;
using MicroVm.Vmm.Devices.Entropy;

namespace MicroVm.Benchmarks.Devices;

/// <summary>One request through a virtqueue: the driver adds it, the device pops, pushes and publishes it.</summary>
public class QueueBenchmarks : IDisposable
{
    private readonly EntropyDevice _device = new();
    private readonly DescriptorChain _chain = new(256);
    private GuestDriver _guest = null!;
    private Virtqueue _queue = null!;
    private Segment[] _segments = null!;

    [Params(1, 3, 12)]
    public int Segments { get; set; }

    [GlobalSetup]
    public void Setup()
    {
        _guest = new GuestDriver(_device);
        _queue = _guest.Queues[0].MakeDeviceSide();
        ulong at = _guest.Allocate(65536);
        _segments = [.. Enumerable.Range(0, Segments).Select(i => new Segment(at + ((ulong)i * 4096), 4096, i > Segments / 2))];
    }

    [GlobalCleanup]
    public void Dispose()
    {
        _chain.Dispose();
        _guest.Dispose();
        GC.SuppressFinalize(this);
    }

    [Benchmark]
    public void Direct()
    {
        _ = _guest.Queues[0].Add(_segments);
        Serve();
    }

    [Benchmark]
    public void Indirect()
    {
        _ = _guest.Queues[0].AddIndirect(_segments);
        Serve();
    }

    private void Serve()
    {
        DriverQueue driver = _guest.Queues[0];
        _ = driver.Notify();
        while (_queue.TryPop(_chain))
        {
            _queue.PushUsed(_chain.Head, 1);
        }

        _ = _queue.Publish();
        _ = _queue.EnableNotifications();
        _ = driver.TryTakeUsed(out _, out _);
    }
}
