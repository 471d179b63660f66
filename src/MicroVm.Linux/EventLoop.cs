using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>Called by an <see cref="EventLoop"/> when a watched descriptor is ready.</summary>
public interface IEventHandler
{
    /// <summary>Handles readiness. <paramref name="events"/> holds EPOLLIN, EPOLLOUT, EPOLLHUP... as epoll_wait gave them.</summary>
    void OnReady(SafeFd fd, uint events);
}

/// <summary>Work put off to the end of an <see cref="EventLoop"/>'s turn.</summary>
public interface IDeferredWork
{
    /// <summary>Does the work; what it defers again runs at the end of the next turn, which then does not wait for events.</summary>
    void RunDeferred();
}

/// <summary>
/// A single-threaded epoll(7) loop, level-triggered unless asked otherwise. Everything but <see cref="Post"/> and
/// <see cref="Stop"/> is called on the loop's own thread (or before <see cref="Run"/>). Dispatch allocates nothing.
/// </summary>
public sealed unsafe class EventLoop : IDisposable, IEventHandler
{
    private const int BatchSize = 64;
    private readonly SafeFd _epoll;
    private readonly EventFd _wake = new();
    private readonly Dictionary<int, Watch> _watches = [];
    private readonly Lock _postLock = new();
    private List<Action> _posted = [];
    private List<Action> _running = [];
    private List<IDeferredWork> _deferred = [];
    private List<IDeferredWork> _runningDeferred = [];
    private uint _generation;
    private volatile bool _stop;
    private volatile Thread? _owner;

    /// <summary>Creates an empty loop.</summary>
    /// <exception cref="LinuxException">No descriptor is free.</exception>
    public EventLoop()
    {
        _epoll = SafeFd.From(Libc.epoll_create1(Libc.EPOLL_CLOEXEC), "epoll_create1");
        Add(_wake.Fd, Libc.EPOLLIN, this);
    }

    /// <summary>Watches <paramref name="fd"/>, which the caller goes on owning and removes before closing.</summary>
    /// <exception cref="LinuxException">The descriptor cannot be watched (a regular file, or watched already).</exception>
    public void Add(SafeFd fd, uint events, IEventHandler handler)
    {
        ArgumentNullException.ThrowIfNull(fd);
        ArgumentNullException.ThrowIfNull(handler);
        int n = fd.Value;
        uint generation = ++_generation;
        Libc.epoll_event ev = new() { events = events, data = ((ulong)generation << 32) | (uint)n };
        Check.Result(Libc.epoll_ctl(_epoll.Value, Libc.EPOLL_CTL_ADD, n, &ev), "epoll_ctl(ADD)");
        _watches[n] = new Watch(fd, handler, generation);
    }

    /// <summary>Changes what is waited for on a watched descriptor; 0 waits for errors and hang-up only.</summary>
    /// <exception cref="LinuxException">The descriptor is not watched.</exception>
    public void Modify(SafeFd fd, uint events)
    {
        ArgumentNullException.ThrowIfNull(fd);
        int n = fd.Value;
        uint generation = _watches.TryGetValue(n, out Watch w) ? w.Generation : 0;
        Libc.epoll_event ev = new() { events = events, data = ((ulong)generation << 32) | (uint)n };
        Check.Result(Libc.epoll_ctl(_epoll.Value, Libc.EPOLL_CTL_MOD, n, &ev), "epoll_ctl(MOD)");
    }

    /// <summary>Stops watching; events of it already fetched in this batch are dropped. Unknown descriptors are ignored.</summary>
    public void Remove(SafeFd fd)
    {
        ArgumentNullException.ThrowIfNull(fd);
        if (_watches.Remove(fd.Value))
        {
            Libc.epoll_event ev = default;
            _ = Libc.epoll_ctl(_epoll.Value, Libc.EPOLL_CTL_DEL, fd.Value, &ev);
        }
    }

    /// <summary>
    /// Has <paramref name="work"/> done when every event of this turn was dispatched: several events make one batch of
    /// work, and long work is cut into turns by deferring itself again. Once per call; allocates nothing.
    /// </summary>
    public void Defer(IDeferredWork work) => _deferred.Add(work);

    /// <summary>Runs <paramref name="action"/> on the loop's thread soon. Any thread may call it.</summary>
    public void Post(Action action)
    {
        lock (_postLock)
        {
            _posted.Add(action);
        }

        _wake.Signal();
    }

    /// <summary>
    /// Runs <paramref name="action"/> on the loop's thread and waits for it. Called on that thread, or before the loop
    /// runs for the first time, it runs at once. What the action throws is thrown here.
    /// </summary>
    public void Invoke(Action action)
    {
        ArgumentNullException.ThrowIfNull(action);
        Thread? owner = _owner;
        if (owner is null || owner == Thread.CurrentThread)
        {
            action();
            return;
        }

        using ManualResetEventSlim done = new();
        Exception? failure = null;
        Post(() =>
        {
            try
            {
                action();
            }
            catch (Exception e) when (e is not OutOfMemoryException)
            {
                failure = e;
            }
            finally
            {
                done.Set();
            }
        });
        done.Wait();
        if (failure is not null)
        {
            System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(failure);
        }
    }

    /// <summary>Makes <see cref="Run"/> return after the current batch. Any thread may call it.</summary>
    public void Stop()
    {
        _stop = true;
        _wake.Signal();
    }

    /// <summary>Makes the calling thread the loop's, before it runs: from now on <see cref="Invoke"/> of others waits for it.</summary>
    public void Claim() => _owner = Thread.CurrentThread;

    /// <summary>Dispatches until <see cref="Stop"/>.</summary>
    public void Run()
    {
        Claim();
        while (!_stop)
        {
            RunOnce(-1);
        }
    }

    /// <summary>Waits at most <paramref name="timeoutMilliseconds"/> (-1: for ever) and dispatches one batch.</summary>
    /// <returns>How many events were dispatched.</returns>
    public int RunOnce(int timeoutMilliseconds)
    {
        Libc.epoll_event* events = stackalloc Libc.epoll_event[BatchSize];
        int n = Libc.epoll_wait(_epoll.Value, events, BatchSize, _deferred.Count == 0 ? timeoutMilliseconds : 0);
        if (n < 0)
        {
            if (Check.LastErrno != Errno.EINTR)
            {
                Check.Throw("epoll_wait");
            }

            n = 0;
        }

        for (int i = 0; i < n; i++)
        {
            // The generation tells a descriptor number that was closed and reused within this batch.
            if (_watches.TryGetValue((int)(uint)events[i].data, out Watch w) && w.Generation == (uint)(events[i].data >> 32))
            {
                w.Handler.OnReady(w.Fd, events[i].events);
            }
        }

        if (_deferred.Count != 0)
        {
            RunDeferred();
        }

        return n;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _epoll.Dispose();
        _wake.Dispose();
    }

    void IEventHandler.OnReady(SafeFd fd, uint events)
    {
        _wake.Drain();
        lock (_postLock)
        {
            (_posted, _running) = (_running, _posted);
        }

        foreach (Action action in _running)
        {
            action();
        }

        _running.Clear();
    }

    private void RunDeferred()
    {
        (_deferred, _runningDeferred) = (_runningDeferred, _deferred);
        try
        {
            foreach (IDeferredWork work in _runningDeferred)
            {
                work.RunDeferred();
            }
        }
        finally
        {
            _runningDeferred.Clear();
        }
    }

    private readonly record struct Watch(SafeFd Fd, IEventHandler Handler, uint Generation);
}
