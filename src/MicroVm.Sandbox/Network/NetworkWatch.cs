using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Netlink;

namespace MicroVm.Sandbox.Network;

/// <summary>
/// Has a container's network followed while it runs: a thread that waits for the kernel's messages, lets a burst of them pass,
/// and then has the namespace read anew. Failures are logged and retried later; they never end the container.
/// </summary>
internal sealed unsafe class NetworkWatch : IDisposable
{
    private const int StackSize = 256 << 10;
    private const int QuietMilliseconds = 50;
    private const int LongestBurstMilliseconds = 500;
    private const int FirstRetryMilliseconds = 1000;
    private const int LastRetryMilliseconds = 60_000;
    private readonly Func<NetlinkMonitor> _open;
    private readonly Action<IReadOnlySet<int>> _follow;
    private readonly Action<string> _warn;
    private readonly Action _called;
    private IReadOnlyList<SafeFd> _callers;
    private readonly EventFd _stop = new();
    private readonly HashSet<int> _removed = [];
    private NetlinkMonitor? _monitor;
    private volatile bool _stopped;

    /// <summary>Listens from now on; what it hears waits for <see cref="Begin"/>.</summary>
    /// <param name="open">Opens a monitor in the namespace.</param>
    /// <param name="follow">Follows changes; gets the indexes of links that went away, which may have come again.</param>
    /// <param name="callers">Descriptors that are waited for beside it until one is readable.</param>
    /// <param name="called">Called then, once.</param>
    /// <param name="warn">Is told of failures.</param>
    /// <exception cref="LinuxException">The monitor cannot be opened.</exception>
    internal NetworkWatch(Func<NetlinkMonitor> open, Action<IReadOnlySet<int>> follow, IReadOnlyList<SafeFd> callers, Action called, Action<string> warn)
    {
        (_open, _follow, _callers, _called, _warn) = (open, follow, callers, called, warn);
        _monitor = open();
    }

    /// <summary>How often changes were followed.</summary>
    internal long Turns { get; private set; }

    /// <summary>Follows changes from now on, on a thread of its own.</summary>
    internal void Begin() => new Thread(Run, StackSize) { IsBackground = true, Name = "network" }.Start();

    /// <summary>Follows no more changes; one that is being followed is not waited for.</summary>
    public void Dispose()
    {
        _stopped = true;
        _stop.Signal();
    }

    private void Run()
    {
        int retry = 0;
        string told = "";
        while (!_stopped)
        {
            try
            {
                if (_monitor is null)
                {
                    // Changes may have been missed; read again.
                    _monitor = _open();
                }
                else if (!WaitForBurst(retry))
                {
                    continue;
                }

                Turns++;
                _follow(_removed);
                _removed.Clear();
                (retry, told) = (0, "");
            }
            catch (Exception e)
            {
                if (_stopped)
                {
                    break;
                }

                if (e.Message != told)
                {
                    told = e.Message;
                    _warn($"a change of the container's network could not be followed, and is tried again: {told}");
                }

                retry = Math.Clamp(retry * 2, FirstRetryMilliseconds, LastRetryMilliseconds);
                if (e is LinuxException { Operation: NetlinkMonitor.Failure })
                {
                    _monitor?.Dispose();
                    _monitor = null;
                }

                if (_monitor is null)
                {
                    Pause(retry);
                }
            }
        }

        _monitor?.Dispose();
    }

    /// <summary>Waits for messages, then until there are none for a while; or for the time of the next try.</summary>
    /// <returns>False when nothing is to be done.</returns>
    private bool WaitForBurst(int retry)
    {
        if (!Wait(retry == 0 ? -1 : retry))
        {
            return retry > 0 && !_stopped;
        }

        bool any = false;
        long end = Environment.TickCount64 + LongestBurstMilliseconds;
        do
        {
            any |= _monitor!.Drain(_removed);
        }
        while (Wait(QuietMilliseconds) && Environment.TickCount64 < end);
        return any && !_stopped;
    }

    /// <returns>Whether there are messages.</returns>
    private bool Wait(int milliseconds)
    {
        const int own = 2;
        Libc.pollfd* fds = stackalloc Libc.pollfd[own + _callers.Count];
        fds[0] = new Libc.pollfd { fd = _stop.Fd.Value, events = Libc.POLLIN };
        fds[1] = new Libc.pollfd { fd = _monitor!.Fd.Value, events = Libc.POLLIN };
        for (int i = 0; i < _callers.Count; i++)
        {
            fds[own + i] = new Libc.pollfd { fd = _callers[i].Value, events = Libc.POLLIN };
        }

        if (Libc.poll(fds, (nuint)(own + _callers.Count), milliseconds) <= 0 || fds[0].revents != 0)
        {
            return false;
        }

        for (int i = 0; i < _callers.Count; i++)
        {
            if (fds[own + i].revents != 0)
            {
                _callers = [];
                _called();
            }
        }

        return fds[1].revents != 0;
    }

    private void Pause(int milliseconds)
    {
        Libc.pollfd pfd = new() { fd = _stop.Fd.Value, events = Libc.POLLIN };
        _ = Libc.poll(&pfd, 1, milliseconds);
    }
}
