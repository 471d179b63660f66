using System.Net.Sockets;
using BenchmarkDotNet.Attributes;
using MicroVm.Tests.Shared.Virtio;

namespace MicroVm.Benchmarks.Devices;

/// <summary>One packet through a vsock stream to, and from, a real Unix socket; the peer's system calls included.</summary>
public class VsockBenchmarks : IDisposable
{
    private VsockGuest _guest = null!;
    private Socket _client = null!;
    private VsockPump _pump = null!;

    [Params(64, 4096)]
    public int Bytes { get; set; }

    [GlobalSetup]
    public void Setup()
    {
        _guest = new VsockGuest();
        (_client, uint port) = _guest.Connect(1);
        _pump = new VsockPump(_guest, _client, 1, port);
    }

    [GlobalCleanup]
    public void Dispose()
    {
        _client.Dispose();
        _guest.Dispose();
        GC.SuppressFinalize(this);
    }

    [Benchmark]
    public void HostToGuest() => _pump.HostToGuest(Bytes);

    [Benchmark]
    public void GuestToHost() => _pump.GuestToHost(Bytes);
}
