using MicroVm.Jail;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Block;

/// <summary>The thread of a disk, and its queue from activation to reset; owns both.</summary>
internal sealed class BlockWorker(string name, BlockRequests requests) : IRequestHandler, IDisposable
{
    private readonly DeviceThread _thread = new(name, ThreadKind.Disk);
    private RequestQueue? _queue;

    /// <summary>The thread.</summary>
    public DeviceThread Thread => _thread;

    /// <summary>Serves a queue.</summary>
    public void Serve(Virtqueue queue, IVirtioInterrupt interrupt) =>
        _thread.Serve(interrupt, () => _queue = new RequestQueue(queue, interrupt, _thread, this, RequestPolicy.Default));

    /// <summary>Stops between two requests; false when the one under way takes longer than <paramref name="milliseconds"/>.</summary>
    public bool TryPark(int milliseconds) => _thread.TryPark(
        () =>
        {
            _queue?.Dispose();
            _queue = null;
        },
        milliseconds);

    /// <summary>Ends the thread, which is parked.</summary>
    public void Dispose() => _thread.Dispose();

    uint IRequestHandler.Serve(Virtqueue queue, DescriptorChain chain)
    {
        if (chain.WritableLength is > 0 and <= uint.MaxValue)
        {
            return requests.Execute(chain);
        }

        // 5.2.6: without a status byte there is no way to answer; 2.7.5: a chain is at most 2^32 bytes.
        _ = queue.Break("a request without a status byte, or longer than 4 GiB (5.2.6, 2.7.5)");
        return 0;
    }
}
