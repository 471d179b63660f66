using BenchmarkDotNet.Attributes;
using MicroVm.Tests.Shared.Virtio;

namespace MicroVm.Benchmarks.Devices;

/// <summary>One request to a disk in the page cache, to its thread and back.</summary>
public class BlockBenchmarks : IDisposable
{
    private const uint In = 0, Out = 1;
    private BlockGuest _guest = null!;

    [Params(4096, 65536)]
    public int Bytes { get; set; }

    [GlobalSetup]
    public void Setup() => _guest = new BlockGuest(new byte[1 << 20]);

    [GlobalCleanup]
    public void Dispose()
    {
        _guest.Dispose();
        GC.SuppressFinalize(this);
    }

    [Benchmark]
    public void Read() => Request(In, toGuest: true);

    [Benchmark]
    public void Write() => Request(Out, toGuest: false);

    private void Request(uint type, bool toGuest)
    {
        Segment header = _guest.Header(type, 8);
        (byte status, _) = _guest.Raw([header, _guest.DataSegment((uint)Bytes, toGuest), _guest.Status]);
        if (status != 0)
        {
            throw new InvalidOperationException($"status {status}");
        }
    }
}
