using MicroVm.Jail;
using MicroVm.Linux;

namespace MicroVm.Virtio;

/// <summary>
/// A thread that serves queues of a device, with an event loop of its own: for devices whose requests block. The device has it
/// for all of its life, since no thread can be made once the system call filter is on; between a reset and the next activation
/// it is parked. Owns thread and loop.
/// </summary>
/// <remarks>
/// <see cref="Serve"/>, <see cref="TryPark"/> and <see cref="Dispose"/> are called by one thread at a time: the device loop's, or
/// that of a vCPU that resets the device.
/// </remarks>
public sealed class DeviceThread : IDisposable
{
    private const int StackBytes = 256 * 1024;
    private readonly ThreadKind _kind;
    private readonly Thread _thread;
    private readonly ManualResetEventSlim _claimed = new();
    private readonly ManualResetEventSlim _parked = new(true);
    private IVirtioInterrupt? _interrupt;
    private bool _started;
    private bool _serving;
    private bool _endPosted;
    private volatile bool _ended;
    private volatile bool _failed;
    private volatile bool _stopping;

    /// <summary>Makes the thread; it runs, parked, from <see cref="Start"/> or the first <see cref="Serve"/> on.</summary>
    /// <param name="name">Its name, also in logs.</param>
    /// <param name="kind">Which system calls it is left.</param>
    public DeviceThread(string name, ThreadKind kind)
    {
        _kind = kind;
        _thread = new Thread(Run, StackBytes) { IsBackground = true, Name = name };
    }

    /// <summary>The thread's name.</summary>
    public string Name => _thread.Name!;

    /// <summary>The loop that the thread runs.</summary>
    public EventLoop Loop { get; } = new();

    /// <summary>The queues are to be left alone: looked at between two requests, so that a reset waits for one at most.</summary>
    public bool IsStopping => _stopping || _failed;

    /// <summary>
    /// Starts the thread, which then waits for work. What a thread does at its start is done on return: a filter may be turned on.
    /// Further calls do nothing.
    /// </summary>
    public void Start()
    {
        if (!_started)
        {
            _started = true;
            _thread.Start();

            // Before its thread has claimed it, a loop would also run here what is to run there.
            _claimed.Wait();
        }
    }

    /// <summary>Leaves the thread the system calls and capabilities of its kind, and waits for that.</summary>
    /// <exception cref="LinuxException">The filter is refused.</exception>
    public void Narrow()
    {
        Start();
        Loop.Invoke(() => SystemCallFilter.Narrow(_kind));
    }

    /// <summary>Runs <paramref name="begin"/> on the thread, which registers what is to be served on its loop.</summary>
    /// <param name="interrupt">The way to the driver, whose device needs a reset when the thread cannot go on.</param>
    /// <param name="begin">What it throws is thrown here; the thread is parked then.</param>
    public void Serve(IVirtioInterrupt interrupt, Action begin)
    {
        Start();
        _interrupt = interrupt;
        _failed = _stopping = _endPosted = false;
        Loop.Invoke(begin);
        _parked.Reset();
        _serving = true;
    }

    /// <summary>Sets <see cref="IsStopping"/>, ahead of <see cref="TryPark"/>.</summary>
    public void RequestStop() => _stopping = true;

    /// <summary>
    /// Has the thread stop after the request that it is at, and run <paramref name="end"/>, which takes from its loop what
    /// <see cref="Serve"/> put there. A thread that does not serve is left alone.
    /// </summary>
    /// <param name="end">Run once, also when this is called again because time was up.</param>
    /// <param name="milliseconds">How long to wait; -1 for as long as the request takes.</param>
    /// <returns>False when time was up: the thread may still be using the queues.</returns>
    public bool TryPark(Action end, int milliseconds = Timeout.Infinite)
    {
        if (!_serving)
        {
            return true;
        }

        if (!_endPosted)
        {
            _endPosted = _stopping = true;
            Loop.Post(() =>
            {
                end();
                _parked.Set();
            });
        }

        if (!_parked.Wait(milliseconds))
        {
            return false;
        }

        _serving = false;
        _interrupt = null;
        return true;
    }

    /// <summary>Ends the thread, which is parked.</summary>
    public void Dispose()
    {
        if (_ended)
        {
            return;
        }

        _ended = true;
        Loop.Stop();
        if (_started)
        {
            _thread.Join();
        }

        Loop.Dispose();
        _claimed.Dispose();
        _parked.Dispose();
    }

    private void Run()
    {
        JailedThread.Name(Name);
        Loop.Claim();
        _claimed.Set();
        while (!_ended)
        {
            try
            {
                Loop.Run();
            }
            catch (Exception e) when (e is IOException or InvalidOperationException)
            {
                // Queues that cannot be served any more end their device, not the machine.
                _failed = true;
                _interrupt?.SignalNeedsReset($"{Name}: {e.Message}");
            }
        }
    }
}
