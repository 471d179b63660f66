using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Virtio;
using MicroVm.VirtioFs.Requests;
using MicroVm.VirtioFs.Waiting;

namespace MicroVm.VirtioFs;

/// <summary>
/// Serves one queue of a virtio-fs device on a thread of its own: system calls for the guest may block it, and the other queue
/// must not wait. It serves from its construction until it is disposed of.
/// </summary>
internal sealed class FsQueueWorker : IEventHandler, IDeferredWork, IDisposable
{
    // Requests that wait together are shown to the driver together, for one interrupt costs more than a small request,
    // but not after so much data that the first waits for long.
    private const int PublishAfterRequests = 32;
    private const uint PublishAfterBytes = 256 << 10;

    // How soon a lock that is held outside of this VM is asked for again.
    private const int ShortestWaitMilliseconds = 1;
    private const int LongestWaitMilliseconds = 50;

    private readonly FuseServer _server;
    private readonly Virtqueue _queue;
    private readonly IVirtioInterrupt _interrupt;
    private readonly DescriptorChain _chain;
    private readonly DeviceThread _thread;
    private readonly IdleFileTimer? _timer;
    private readonly TimerFd? _lockTimer; // the server's
    private volatile FuseRequest? _request;
    private int _waitMilliseconds;
    private int _releasesSeen;

    /// <summary>Starts serving.</summary>
    /// <param name="thread">The thread; parked.</param>
    /// <param name="server">Carries out the requests.</param>
    /// <param name="queue">The queue; nothing else may use it until this is disposed of.</param>
    /// <param name="interrupt">The way to the driver.</param>
    /// <param name="timer">Run by this thread as well; borrowed.</param>
    /// <param name="mayWait">Requests of this queue may wait for locks: true for one queue of a server.</param>
    public FsQueueWorker(
        DeviceThread thread, FuseServer server, Virtqueue queue, IVirtioInterrupt interrupt, IdleFileTimer? timer = null, bool mayWait = false)
    {
        _timer = timer;
        _lockTimer = mayWait ? server.Waiting.Timer : null;
        _server = server;
        _queue = queue;
        _interrupt = interrupt;
        _chain = new DescriptorChain(queue.Size);
        _thread = thread;
        _thread.Serve(interrupt, () => _thread.Loop.Defer(this));
    }

    /// <summary>Has the thread stop after the request that it is at, or a step of it. Any thread.</summary>
    public void RequestStop()
    {
        _thread.RequestStop();
        _request?.Stop();
    }

    /// <summary>Stops, and waits for that; false when the request under way takes longer than <paramref name="milliseconds"/>.</summary>
    public bool TryPark(int milliseconds)
    {
        RequestStop();
        return _thread.TryPark(LetGo, milliseconds);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _ = TryPark(Timeout.Infinite);
        _request?.Dispose();
        _chain.Dispose();
    }

    /// <summary>Prepares the thread, which first comes here, and serves what waits already.</summary>
    void IDeferredWork.RunDeferred()
    {
        if (_thread.IsStopping)
        {
            return;
        }

        _request = _server.PrepareThread(_lockTimer is not null);
        _thread.Loop.Add(_queue.Kick.Fd, Libc.EPOLLIN, this);
        if (_timer is not null)
        {
            _thread.Loop.Add(_timer.Fd, Libc.EPOLLIN, _timer);
        }

        if (_lockTimer is not null)
        {
            _thread.Loop.Add(_lockTimer.Fd, Libc.EPOLLIN, this);
            _thread.Loop.Add(_server.Waiting.Wake.Fd, Libc.EPOLLIN, this);
            _thread.Loop.Add(_server.Fifos.Fd, Libc.EPOLLIN, this);
            _thread.Loop.Add(_server.Events.Timer.Fd, Libc.EPOLLIN, this);
            if (_server.Events.Fd is { } events)
            {
                _thread.Loop.Add(events, Libc.EPOLLIN, this);
            }
        }

        Serve();
    }

    void IEventHandler.OnReady(SafeFd fd, uint events)
    {
        if (fd == _queue.Kick.Fd)
        {
            _ = _queue.Kick.Drain();
            Serve();
        }
        else if (fd == _server.Events.Fd)
        {
            _server.Events.Collect();
            TellEvents();
        }
        else if (fd == _server.Fifos.Fd)
        {
            _server.Fifos.Collect();
            TellEvents();
        }
        else if (fd == _server.Events.Timer.Fd)
        {
            _server.Events.EndPause();
            TellEvents();
        }
        else
        {
            _lockTimer!.Drain();
            _ = _server.Waiting.Wake.Drain();
            RetryWaiters();
        }
    }

    private void LetGo()
    {
        _thread.Loop.Remove(_queue.Kick.Fd);
        if (_timer is not null)
        {
            _thread.Loop.Remove(_timer.Fd);
        }

        if (_lockTimer is not null)
        {
            _thread.Loop.Remove(_lockTimer.Fd);
            _thread.Loop.Remove(_server.Waiting.Wake.Fd);
            _thread.Loop.Remove(_server.Fifos.Fd);
            _thread.Loop.Remove(_server.Events.Timer.Fd);
            if (_server.Events.Fd is { } events)
            {
                _thread.Loop.Remove(events);
            }
        }
    }

    private void Serve()
    {
        do
        {
            _queue.DisableNotifications();
            ServePending();
        }
        while (!_thread.IsStopping && !_queue.IsBroken && _queue.EnableNotifications());

        if (_queue.IsBroken)
        {
            _interrupt.SignalNeedsReset(_queue.BrokenReason!);
            _thread.Loop.Remove(_queue.Kick.Fd);
        }
    }

    private void ServePending()
    {
        int waiting = 0;
        uint bytes = 0;
        while (!_thread.IsStopping && _queue.TryPop(_chain))
        {
            uint written = _server.Process(_request!, _chain);
            if (written == FuseServer.Deferred)
            {
                // A lock that has just been taken may be given up at once: look again soon.
                if (_server.Waiting.Count > 0)
                {
                    _waitMilliseconds = ShortestWaitMilliseconds;
                    _lockTimer!.Set(_waitMilliseconds);
                }

                continue;
            }

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

        if (_lockTimer is not null)
        {
            TellEvents();
        }

        if (_server.LockReleases != _releasesSeen && _lockTimer is not null)
        {
            RetryWaiters();
        }
    }

    private void RetryWaiters()
    {
        WaitingRequests waiters = _server.Waiting;
        bool progress = false;
        do
        {
            _releasesSeen = _server.LockReleases;
            for (int i = 0; i < waiters.Count && !_queue.IsBroken;)
            {
                int error = _server.RetryWaiter(i);
                if (error == -(int)Errno.EAGAIN)
                {
                    i++;
                    continue;
                }

                (ushort head, uint written) = waiters.Finish(i, error);
                _queue.PushUsed(head, written);
                progress = true;
            }
        }
        while (waiters.Count > 0 && _releasesSeen != _server.LockReleases);

        if (progress)
        {
            Publish();
        }

        if (waiters.Count > 0)
        {
            _waitMilliseconds = progress ? ShortestWaitMilliseconds : Math.Min(_waitMilliseconds * 2, LongestWaitMilliseconds);
            _lockTimer!.Set(Math.Max(_waitMilliseconds, ShortestWaitMilliseconds));
        }
    }

    private void TellEvents()
    {
        if (!_queue.IsBroken && _server.Events.TryFinish(_server.Fifos, out ushort head, out uint written))
        {
            _queue.PushUsed(head, written);
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
