using MicroVm.Vmm.Jail;
using MicroVm.Vmm.Virtio;

namespace MicroVm.Vmm.Devices.Block;

/// <summary>The thread that serves a disk's queue from activation to reset; owns it.</summary>
internal sealed class BlockWorker : IRequestHandler, IDisposable
{
    private readonly BlockRequests _requests;
    private readonly DeviceThread _thread;
    private readonly RequestQueue _queue;

    public BlockWorker(string name, Virtqueue queue, IVirtioInterrupt interrupt, BlockRequests requests)
    {
        _requests = requests;
        _thread = new DeviceThread(name, ThreadKind.Disk, interrupt);
        _queue = new RequestQueue(queue, interrupt, _thread.Loop, this);
        _thread.Start();
    }

    /// <summary>Stops between two requests, and waits for that.</summary>
    public void Dispose()
    {
        _thread.Stop();
        _queue.Dispose();
        _thread.Dispose();
    }

    uint IRequestHandler.Serve(Virtqueue queue, DescriptorChain chain)
    {
        if (chain.WritableLength is > 0 and <= uint.MaxValue)
        {
            return _requests.Execute(chain);
        }

        // 5.2.6: without a status byte there is no way to answer; 2.7.5: a chain is at most 2^32 bytes.
        _ = queue.Break("a request without a status byte, or longer than 4 GiB (5.2.6, 2.7.5)");
        return 0;
    }
}
