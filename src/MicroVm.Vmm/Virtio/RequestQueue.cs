using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Vmm.Virtio;

/// <summary>Carries out the requests of a <see cref="RequestQueue"/>.</summary>
internal interface IRequestHandler
{
    /// <summary>Carries out one request; bytes written to its device-writable buffers. May break the queue instead.</summary>
    uint Serve(Virtqueue queue, DescriptorChain chain);
}

/// <summary>
/// A virtqueue of requests that are answered in the order they came, on the thread of an event loop, from construction to
/// disposal; no turn takes so many that others on the loop, or the driver, wait for long.
/// </summary>
internal sealed class RequestQueue : IEventHandler, IDeferredWork, IDisposable
{
    // Answers are shown to the driver at least this often: a queue full of slow requests is not held back.
    private const int TurnBudget = 16;
    private readonly Virtqueue _queue;
    private readonly IVirtioInterrupt _interrupt;
    private readonly EventLoop _loop;
    private readonly IRequestHandler _handler;
    private readonly DescriptorChain _chain;
    private bool _turnQueued;
    private bool _disposed;

    /// <summary>Serves what waits in the queue already, and what comes.</summary>
    /// <param name="queue">The queue; nothing else may use it until this is disposed of.</param>
    /// <param name="interrupt">The way to the driver.</param>
    /// <param name="loop">The loop; the caller is its thread, or has not started it. Borrowed.</param>
    /// <param name="handler">Carries out the requests.</param>
    internal RequestQueue(Virtqueue queue, IVirtioInterrupt interrupt, EventLoop loop, IRequestHandler handler)
    {
        _queue = queue;
        _interrupt = interrupt;
        _loop = loop;
        _handler = handler;
        _chain = new DescriptorChain(queue.Size);
        loop.Add(queue.Kick.Fd, Libc.EPOLLIN, this);
        ScheduleTurn();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (!_disposed)
        {
            _disposed = true;
            _loop.Remove(_queue.Kick.Fd);
            _chain.Dispose();
        }
    }

    void IEventHandler.OnReady(SafeFd fd, uint events)
    {
        _ = _queue.Kick.Drain();
        ScheduleTurn();
    }

    void IDeferredWork.RunDeferred()
    {
        _turnQueued = false;
        if (_disposed)
        {
            return;
        }

        _queue.DisableNotifications();
        int taken = 0;
        while (taken < TurnBudget && _queue.TryPop(_chain))
        {
            uint written = _handler.Serve(_queue, _chain);
            if (_queue.IsBroken)
            {
                break;
            }

            taken++;
            _queue.PushUsed(_chain.Head, written);
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

    private void ScheduleTurn()
    {
        if (!_turnQueued && !_disposed)
        {
            _turnQueued = true;
            _loop.Defer(this);
        }
    }
}
