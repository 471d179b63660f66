using MicroVm.Linux;
using MicroVm.Vmm.Jail;
using MicroVm.Vmm.Virtio;

namespace MicroVm.Vmm.Devices.Block;

/// <summary>The thread that serves a disk's queue from activation to reset. Owns the thread and its loop.</summary>
internal sealed class BlockWorker : IRequestHandler, IDisposable
{
    private const int StackBytes = 256 * 1024;
    private readonly IVirtioInterrupt _interrupt;
    private readonly BlockRequests _requests;
    private readonly EventLoop _loop = new();
    private readonly RequestQueue _queue;
    private readonly Thread _thread;

    public BlockWorker(string name, Virtqueue queue, IVirtioInterrupt interrupt, BlockRequests requests)
    {
        _interrupt = interrupt;
        _requests = requests;
        _queue = new RequestQueue(queue, interrupt, _loop, this);
        _thread = new Thread(Run, StackBytes) { IsBackground = true, Name = name };
        _thread.Start();
    }

    /// <summary>Stops between two requests, and waits for that.</summary>
    public void Dispose()
    {
        _loop.Stop();
        _thread.Join();
        _queue.Dispose();
        _loop.Dispose();
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

    private void Run()
    {
        try
        {
            JailedThread.Begin(ThreadKind.Disk);
            _loop.Run();
        }
        catch (Exception e) when (e is IOException or InvalidOperationException)
        {
            // A disk that cannot be served any more ends its device, not the machine.
            _interrupt.SignalNeedsReset($"{_thread.Name}: {e.Message}");
        }
    }
}
