using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Counters;
using MicroVm.Vmm.Jail;
using MicroVm.Vmm.Virtio;

namespace MicroVm.Vmm.Devices.Block;

/// <summary>The thread that serves a disk's queue from activation to reset. Owns the thread, its loop and its chain.</summary>
internal sealed class BlockWorker : IEventHandler, IDeferredWork, IDisposable
{
    private const int StackBytes = 256 * 1024;

    // Answers are shown to the driver at least this often: a queue full of slow requests is not held back.
    private const int TurnBudget = 16;
    private readonly Virtqueue _queue;
    private readonly IVirtioInterrupt _interrupt;
    private readonly BlockRequests _requests;
    private readonly EventLoop _loop = new();
    private readonly DescriptorChain _chain;
    private readonly Thread _thread;
    private bool _turnQueued;

    public BlockWorker(string name, Virtqueue queue, IVirtioInterrupt interrupt, BlockRequests requests)
    {
        _queue = queue;
        _interrupt = interrupt;
        _requests = requests;
        _chain = new DescriptorChain(queue.Size);
        _thread = new Thread(Run, StackBytes) { IsBackground = true, Name = name };
        _loop.Add(queue.Kick.Fd, Libc.EPOLLIN, this);
    }

    /// <summary>Starts serving, with what waits in the queue already.</summary>
    public void Start()
    {
        ScheduleTurn();
        _thread.Start();
    }

    /// <summary>Stops between two requests, and waits for that.</summary>
    public void Dispose()
    {
        _loop.Stop();
        _thread.Join();
        _loop.Dispose();
        _chain.Dispose();
    }

    void IEventHandler.OnReady(SafeFd fd, uint events)
    {
        _ = _queue.Kick.Drain();
        ScheduleTurn();
    }

    void IDeferredWork.RunDeferred()
    {
        _turnQueued = false;
        _queue.DisableNotifications();
        int taken = 0;
        while (taken < TurnBudget && _queue.TryPop(_chain))
        {
            taken++;
            if (_chain.WritableLength == 0 || _chain.WritableLength > uint.MaxValue)
            {
                // 5.2.6: without a status byte there is no way to answer; 2.7.5: a chain is at most 2^32 bytes.
                _ = _queue.Break("a request without a status byte, or longer than 4 GiB (5.2.6, 2.7.5)");
                break;
            }

            _queue.PushUsed(_chain.Head, _requests.Execute(_chain));
        }

        if (_queue.Publish())
        {
            _interrupt.SignalUsed();
        }

        if (!_queue.ReportIfBroken(_interrupt) && (taken == TurnBudget || _queue.EnableNotifications()))
        {
            ScheduleTurn();
        }
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
            VmmLog.Write($"{_thread.Name}: {e.Message}");
            _interrupt.SignalNeedsReset(e.Message);
        }
    }

    private void ScheduleTurn()
    {
        if (!_turnQueued)
        {
            _turnQueued = true;
            _loop.Defer(this);
        }
    }
}
