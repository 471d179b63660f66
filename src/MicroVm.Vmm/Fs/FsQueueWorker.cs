using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Jail;
using MicroVm.Vmm.Virtio;

namespace MicroVm.Vmm.Fs;

/// <summary>
/// A thread that serves one queue of a virtio-fs device: system calls for the guest may block it, and the other queue
/// must not wait. It runs from its construction until it is disposed of.
/// </summary>
internal sealed class FsQueueWorker : IEventHandler, IDisposable
{
    // Requests that wait together are shown to the driver together, for one interrupt costs more than a small request,
    // but not after so much data that the first waits for long.
    private const int PublishAfterRequests = 32;
    private const uint PublishAfterBytes = 256 << 10;
    private const int StackSize = 256 << 10;

    private readonly FuseServer _server;
    private readonly Virtqueue _queue;
    private readonly IVirtioInterrupt _interrupt;
    private readonly EventLoop _loop = new();
    private readonly DescriptorChain _chain;
    private readonly Thread _thread;
    private FuseRequest? _request;

    /// <summary>Starts serving.</summary>
    /// <param name="name">The thread's name.</param>
    /// <param name="server">Carries out the requests.</param>
    /// <param name="queue">The queue; nothing else may use it until this is disposed of.</param>
    /// <param name="interrupt">The way to the driver.</param>
    public FsQueueWorker(string name, FuseServer server, Virtqueue queue, IVirtioInterrupt interrupt)
    {
        _server = server;
        _queue = queue;
        _interrupt = interrupt;
        _chain = new DescriptorChain(queue.Size);
        _loop.Add(queue.Kick.Fd, Libc.EPOLLIN, this);
        _thread = new Thread(Run, StackSize) { IsBackground = true, Name = name };
        _thread.Start();
    }

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        _queue.Kick.Drain();
        do
        {
            _queue.DisableNotifications();
            ServePending();
        }
        while (!_queue.IsBroken && _queue.EnableNotifications());

        if (_queue.IsBroken)
        {
            _interrupt.SignalNeedsReset(_queue.BrokenReason!);
            _loop.Remove(_queue.Kick.Fd);
        }
    }

    /// <summary>Stops the thread after the request that it is at.</summary>
    public void Dispose()
    {
        _loop.Stop();
        _thread.Join();
        _loop.Dispose();
        _chain.Dispose();
    }

    private void Run()
    {
        try
        {
            JailedThread.Begin(ThreadKind.Files);
            using FuseRequest request = _server.PrepareThread();
            _request = request;
            OnReady(_queue.Kick.Fd, Libc.EPOLLIN);
            _loop.Run();
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            // The host or this program is at fault, not the guest: its other devices go on.
            _interrupt.SignalNeedsReset($"{_thread.Name}: {e.Message}");
        }
    }

    private void ServePending()
    {
        int waiting = 0;
        uint bytes = 0;
        while (_queue.TryPop(_chain))
        {
            uint written = _server.Process(_request!, _chain);
            _queue.PushUsed(_chain.Head, written);
            waiting++;
            bytes += written;
            if (waiting == PublishAfterRequests || bytes >= PublishAfterBytes)
            {
                Publish();
                (waiting, bytes) = (0, 0);
            }
        }

        if (waiting > 0)
        {
            Publish();
        }
    }

    private void Publish()
    {
        if (_queue.Publish())
        {
            _interrupt.SignalUsed();
        }
    }
}
