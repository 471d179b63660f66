namespace MicroVm.Agent.Containers;

/// <summary>The agent's children by process id. A child is entered before it can be reaped, whatever thread cloned it.</summary>
public sealed class ProcessTable
{
    private readonly Lock _lock = new();
    private readonly Dictionary<int, ContainerProcess> _processes = [];

    // By process id: wait(2)'s status, once there is one. The lock of its own tells of changes.
    private readonly Dictionary<int, int?> _helpers = [];

    /// <summary>The children that are no container's process and have not ended.</summary>
    public IReadOnlyList<int> Helpers
    {
        get
        {
            lock (_helpers)
            {
                return [.. _helpers.Where(h => h.Value is null).Select(h => h.Key)];
            }
        }
    }

    /// <summary>Clones a child by <paramref name="spawn"/> and enters it under the id that it then has.</summary>
    public void Spawn(ContainerProcess process, Action spawn)
    {
        ArgumentNullException.ThrowIfNull(process);
        ArgumentNullException.ThrowIfNull(spawn);
        lock (_lock)
        {
            spawn();
            _processes[process.Child!.Pid] = process;
        }
    }

    /// <summary>Clones a child that is no container's process (a hook) and ends by itself; <see cref="WaitHelper"/> must follow.</summary>
    public void SpawnHelper(Child.ClonedChild child, Action spawn)
    {
        ArgumentNullException.ThrowIfNull(child);
        ArgumentNullException.ThrowIfNull(spawn);
        lock (_helpers)
        {
            spawn();
            _helpers[child.Pid] = null;
        }
    }

    /// <summary>Waits until a child of <see cref="SpawnHelper"/> has been reaped; wait(2)'s status.</summary>
    public int WaitHelper(int pid)
    {
        lock (_helpers)
        {
            int? status;
            while ((status = _helpers[pid]) is null)
            {
                Monitor.Wait(_helpers);
            }

            _helpers.Remove(pid);
            return status.Value;
        }
    }

    /// <summary>Records the end of a child that was reaped. False: it is not one of <see cref="SpawnHelper"/>.</summary>
    public bool EndHelper(int pid, int status)
    {
        lock (_helpers)
        {
            if (!_helpers.ContainsKey(pid))
            {
                return false;
            }

            _helpers[pid] = status;
            Monitor.PulseAll(_helpers);
            return true;
        }
    }

    /// <summary>Takes out the process of a child that was reaped; null for one that the agent did not make (an orphan).</summary>
    public ContainerProcess? Remove(int pid)
    {
        lock (_lock)
        {
            return _processes.Remove(pid, out ContainerProcess? process) ? process : null;
        }
    }
}
