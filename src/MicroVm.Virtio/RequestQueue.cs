using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Virtio;

/// <summary>Carries out the requests of a <see cref="RequestQueue"/>.</summary>
public interface IRequestHandler
{
    /// <summary>Carries out one request; bytes written to its device-writable buffers. May break the queue instead.</summary>
    uint Serve(Virtqueue queue, DescriptorChain chain);
}

/// <summary>When answers are shown to the driver, and when others on the loop have their turn.</summary>
/// <param name="TurnRequests">Most requests of one turn of the loop.</param>
/// <param name="PublishRequests">Answers are shown after so many.</param>
/// <param name="PublishBytes">Answers are shown once they hold so many bytes.</param>
public readonly record struct RequestPolicy(int TurnRequests, int PublishRequests, uint PublishBytes)
{
    /// <summary>For a device of the loop that all others share, and for requests that may each take long.</summary>
    public static readonly RequestPolicy Default = new(16, 16, uint.MaxValue);
}

/// <summary>
/// A virtqueue of requests that are answered in the order they came, on the thread of an event loop, from construction to
/// disposal. Allocates nothing for a request.
/// </summary>
public sealed class RequestQueue : IEventHandler, IDeferredWork, IDisposable
{
    private readonly Virtqueue _queue;
    private readonly IVirtioInterrupt _interrupt;
    private readonly EventLoop _loop;
    private readonly IRequestHandler _handler;
    private readonly RequestPolicy _policy;
    private readonly DeviceThread? _thread;
    private readonly DescriptorChain _chain;
    private int _waiting;
    private uint _waitingBytes;
    private bool _turnQueued;
    private bool _disposed;

    /// <summary>Serves, on the device loop, what waits in the queue already, and what comes.</summary>
    /// <param name="queue">The queue; nothing else may use it until this is disposed of.</param>
    /// <param name="interrupt">The way to the driver.</param>
    /// <param name="loop">The loop; the caller is its thread, or has not started it. Borrowed.</param>
    /// <param name="handler">Carries out the requests.</param>
    /// <param name="segments">Most segments of a request; the queue's size when it is greater.</param>
    public RequestQueue(Virtqueue queue, IVirtioInterrupt interrupt, EventLoop loop, IRequestHandler handler, int segments = 0)
        : this(queue, interrupt, loop, handler, RequestPolicy.Default, null, segments)
    {
    }

    /// <summary>The same on a thread of the device's own, which is the caller, until that is to stop.</summary>
    public RequestQueue(Virtqueue queue, IVirtioInterrupt interrupt, DeviceThread thread, IRequestHandler handler, RequestPolicy policy)
        : this(queue, interrupt, thread.Loop, handler, policy, thread, 0)
    {
    }

    private RequestQueue(
        Virtqueue queue, IVirtioInterrupt interrupt, EventLoop loop, IRequestHandler handler, RequestPolicy policy, DeviceThread? thread, int segments)
    {
        _queue = queue;
        _interrupt = interrupt;
        _loop = loop;
        _handler = handler;
        _policy = policy;
        _thread = thread;
        _chain = new DescriptorChain(Math.Max(queue.Size, segments));
        loop.Add(queue.Kick.Fd, Libc.EPOLLIN, this);
        ScheduleTurn();
    }

    private bool IsStopping => _disposed || _thread is { IsStopping: true };

    /// <summary>Lets go of the queue. The loop's thread.</summary>
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
        if (IsStopping)
        {
            return;
        }

        _queue.DisableNotifications();
        int taken = 0;
        bool more = true;
        while (taken < _policy.TurnRequests && !IsStopping && (more = _queue.TryPopOrArm(_chain)))
        {
            uint written = _handler.Serve(_queue, _chain);
            if (_queue.IsBroken)
            {
                break;
            }

            taken++;
            _queue.PushUsed(_chain.Head, written);
            _waiting++;
            _waitingBytes = written > uint.MaxValue - _waitingBytes ? uint.MaxValue : _waitingBytes + written;
            if (_waiting >= _policy.PublishRequests || _waitingBytes >= _policy.PublishBytes)
            {
                Publish();
            }
        }

        Publish();
        if (!_queue.ReportIfBroken(_interrupt) && more)
        {
            ScheduleTurn();
        }
    }

    private void Publish()
    {
        (_waiting, _waitingBytes) = (0, 0);
        if (_queue.Publish())
        {
            _interrupt.SignalUsed();
        }
    }

    private void ScheduleTurn()
    {
        if (!_turnQueued && !IsStopping)
        {
            _turnQueued = true;
            _loop.Defer(this);
        }
    }
}
