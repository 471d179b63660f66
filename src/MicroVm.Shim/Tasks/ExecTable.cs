namespace MicroVm.Shim.Tasks;

/// <summary>A container's further processes, and the threads that wait for their ends. Any thread.</summary>
internal sealed class ExecTable
{
    private const int WaiterStackBytes = 256 << 10;
    private readonly Lock _lock = new();
    private readonly Dictionary<string, TaskProcess> _execs = [];
    private readonly List<Thread> _waiters = [];
    private bool _closed;

    /// <summary>A process by its id; null when there is none.</summary>
    internal TaskProcess? Find(string execId)
    {
        lock (_lock)
        {
            return _execs.GetValueOrDefault(execId);
        }
    }

    /// <summary>Adds a process; false when the container has one of its id.</summary>
    /// <param name="exec">The process.</param>
    /// <param name="refuse">Throws when the container takes no further process.</param>
    internal bool TryAdd(TaskProcess exec, Action<bool> refuse)
    {
        lock (_lock)
        {
            refuse(_closed);
            return _execs.TryAdd(exec.ExecId, exec);
        }
    }

    /// <summary>Asks whether the container takes processes now.</summary>
    /// <param name="refuse">Throws when it does not; it is given whether the table is closed.</param>
    internal void Check(Action<bool> refuse)
    {
        lock (_lock)
        {
            refuse(_closed);
        }
    }

    /// <summary>Forgets a process.</summary>
    internal void Remove(string execId)
    {
        lock (_lock)
        {
            _ = _execs.Remove(execId);
        }
    }

    /// <summary>Starts a thread that waits for the end of a process.</summary>
    internal void StartWaiter(Action wait)
    {
        Thread waiter = new(wait.Invoke, WaiterStackBytes) { IsBackground = true, Name = "wait" };
        lock (_lock)
        {
            _waiters.RemoveAll(t => !t.IsAlive);
            _waiters.Add(waiter);
            waiter.Start();
        }
    }

    /// <summary>Waits until all processes have ended; false when one has not in time.</summary>
    internal bool Join(TimeSpan patience)
    {
        long deadline = Environment.TickCount64 + (long)patience.TotalMilliseconds;
        Thread[] waiters;
        lock (_lock)
        {
            waiters = [.. _waiters];
        }

        return Array.TrueForAll(waiters, t => t.Join((int)Math.Max(0, deadline - Environment.TickCount64)));
    }

    /// <summary>Waits, for each process, until its output is delivered.</summary>
    internal void Drain(TimeSpan patience)
    {
        foreach (TaskProcess exec in Snapshot())
        {
            _ = exec.Process?.Drain(patience);
        }
    }

    /// <summary>Takes no further process; false when it was closed before.</summary>
    internal bool TryClose()
    {
        lock (_lock)
        {
            bool first = !_closed;
            _closed = true;
            return first;
        }
    }

    /// <summary>Closes the processes' streams, after <see cref="TryClose"/>.</summary>
    internal void CloseProcesses()
    {
        foreach (TaskProcess exec in Snapshot())
        {
            exec.Process?.Close();
        }
    }

    private TaskProcess[] Snapshot()
    {
        lock (_lock)
        {
            return [.. _execs.Values];
        }
    }
}
