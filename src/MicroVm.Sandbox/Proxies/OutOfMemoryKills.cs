using MicroVm.Linux;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Sandbox.Proxies;

/// <summary>
/// Counts the moments at which the guest's kernel killed processes of a container for want of memory. The guest is asked by one thread,
/// started with the first caller, however many callers wait, and at most ten times a second: each answer becomes an event for callers. Any thread.
/// </summary>
internal sealed class OutOfMemoryKills(AgentClient agent, string id)
{
    // Shorter than what callers of the control socket wait for an answer.
    private static readonly TimeSpan LongestWait = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan LastKill = TimeSpan.FromSeconds(2);
    internal const int PauseMilliseconds = 100;
    private readonly object _lock = new();
    private long _count;
    private bool _started;
    private bool _ended;

    /// <summary>
    /// Waits until there are more kills than <paramref name="known"/>, the container has ended, or some seconds have passed.
    /// Returns at once when <paramref name="known"/> is null.
    /// </summary>
    internal (long Count, bool Ended) Wait(long? known)
    {
        lock (_lock)
        {
            if (!_started)
            {
                _started = true;
                new Thread(Follow, 256 << 10) { IsBackground = true, Name = "oom" }.Start();
            }

            long deadline = Environment.TickCount64 + (long)LongestWait.TotalMilliseconds;
            while (_count <= known && !_ended && deadline - Environment.TickCount64 is var left and > 0)
            {
                _ = Monitor.Wait(_lock, (int)left);
            }

            return (_count, _ended);
        }
    }

    /// <summary>
    /// The init has ended: nobody waits any longer. When it was itself killed for want of memory, the guest's word of that kill is waited
    /// for.
    /// </summary>
    internal void End(bool killed)
    {
        lock (_lock)
        {
            if (killed && _started && !_ended)
            {
                _ = Monitor.Wait(_lock, LastKill);
            }

            _ended = true;
            Monitor.PulseAll(_lock);
        }
    }

    private void Follow()
    {
        GetOomEventRequest request = new() { ContainerId = id };
        try
        {
            while (true)
            {
                request.KnownKills = agent.GetOomEvent(request).Kills;
                lock (_lock)
                {
                    _count++;
                    Monitor.PulseAll(_lock);
                }

                Thread.Sleep(PauseMilliseconds);
            }
        }
        catch (Exception e) when (e is TtrpcException or LinuxException or ObjectDisposedException)
        {
            lock (_lock)
            {
                _ended = true;
                Monitor.PulseAll(_lock);
            }
        }
    }
}
