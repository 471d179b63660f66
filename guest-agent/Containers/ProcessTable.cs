namespace MicroVm.Agent.Containers;

/// <summary>The agent's children by process id. A child is entered before it can be reaped, whatever thread cloned it.</summary>
public sealed class ProcessTable
{
    private readonly Lock _lock = new();
    private readonly Dictionary<int, ContainerProcess> _processes = [];

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

    /// <summary>Takes out the process of a child that was reaped; null for one that the agent did not make (an orphan).</summary>
    public ContainerProcess? Remove(int pid)
    {
        lock (_lock)
        {
            return _processes.Remove(pid, out ContainerProcess? process) ? process : null;
        }
    }
}
