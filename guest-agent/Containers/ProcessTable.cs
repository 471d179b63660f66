namespace MicroVm.Agent.Containers;

/// <summary>The agent's children by process id. A child is entered before it can be reaped, whatever thread cloned it.</summary>
public sealed class ProcessTable
{
    private readonly Lock _lock = new();
    private readonly Dictionary<int, ContainerProcess> _processes = [];
    private readonly Dictionary<int, TaskCompletionSource<int>> _helpers = [];

    /// <summary>The children that are no container's process and have not ended.</summary>
    public IReadOnlyList<int> Helpers
    {
        get
        {
            lock (_lock)
            {
                return [.. _helpers.Keys];
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

    /// <summary>Clones a child that is no container's process (a hook) and ends by itself.</summary>
    /// <returns>wait(2)'s status, once it has been reaped.</returns>
    public Task<int> SpawnHelper(Child.ClonedChild child, Action spawn)
    {
        ArgumentNullException.ThrowIfNull(child);
        ArgumentNullException.ThrowIfNull(spawn);
        TaskCompletionSource<int> end = new(TaskCreationOptions.RunContinuationsAsynchronously);
        lock (_lock)
        {
            spawn();
            _helpers[child.Pid] = end;
        }

        return end.Task;
    }

    /// <summary>Records the end of a child that was reaped. False: it is not one of <see cref="SpawnHelper"/>.</summary>
    public bool EndHelper(int pid, int status)
    {
        TaskCompletionSource<int>? end;
        lock (_lock)
        {
            _helpers.Remove(pid, out end);
        }

        end?.SetResult(status);
        return end is not null;
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
