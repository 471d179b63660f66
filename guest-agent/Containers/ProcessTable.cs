using MicroVm.Agent.Cgroups;
using MicroVm.Agent.Child;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Containers;

/// <summary>
/// The agent's children by process id. A child is entered before its end is reported, whatever thread cloned it, and though the
/// id of one that clones itself (<see cref="ClonedChild.Forks"/>) is known only when it may have ended already.
/// </summary>
public sealed unsafe class ProcessTable
{
    // Held while children are reaped: an id that is looked up under it is still that of the same child.
    private readonly object _lock = new();
    private readonly Dictionary<int, ContainerProcess> _processes = [];

    // By process id: wait(2)'s status, once there is one. The lock tells of changes.
    private readonly Dictionary<int, int?> _helpers = [];

    // Children of unknown ids that ended while some child was cloning itself.
    private readonly Dictionary<int, int> _unclaimed = [];
    private int _forking;

    /// <summary>The children that are no container's process and have not ended.</summary>
    public IReadOnlyList<int> Helpers
    {
        get
        {
            lock (_lock)
            {
                return [.. _helpers.Where(h => h.Value is null).Select(h => h.Key)];
            }
        }
    }

    /// <summary>Clones the child of <paramref name="process"/> and enters it under the id that it then has.</summary>
    /// <param name="process">The process.</param>
    /// <param name="spawn">Calls <see cref="ClonedChild.Spawn"/>.</param>
    /// <param name="prepare">Done while the child waits, if it does: one that is to clone itself has not yet.</param>
    /// <exception cref="ChildFailedException">A child that was to clone itself failed before.</exception>
    public void Spawn(ContainerProcess process, Action spawn, Action? prepare = null)
    {
        ArgumentNullException.ThrowIfNull(process);
        ClonedChild child = process.Child!;
        Spawn(child, spawn, prepare, () => _processes[child.Pid] = process, status => process.EarlyStatus = status);
    }

    /// <summary>Clones a child that is no container's process (a hook) and ends by itself; <see cref="WaitHelper"/> must follow.</summary>
    /// <exception cref="ChildFailedException">A child that was to clone itself failed before.</exception>
    public void SpawnHelper(ClonedChild child, Action spawn)
    {
        ArgumentNullException.ThrowIfNull(child);
        Spawn(child, spawn, null, () => _helpers[child.Pid] = null, status => _helpers[child.Pid] = status);
    }

    /// <summary>Waits until a child of <see cref="SpawnHelper"/> has been reaped; wait(2)'s status.</summary>
    public int WaitHelper(int pid)
    {
        lock (_lock)
        {
            int? status;
            while ((status = _helpers[pid]) is null)
            {
                Monitor.Wait(_lock);
            }

            _helpers.Remove(pid);
            return status.Value;
        }
    }

    /// <summary>Reaps a child that has ended: its id and wait(2)'s status; 0 when there is none.</summary>
    public int Reap(out int status)
    {
        lock (_lock)
        {
            int value;
            int pid = Libc.waitpid(-1, &value, Libc.WNOHANG | Libc.__WALL);
            status = value;
            if (pid > 0 && _forking > 0 && !_processes.ContainsKey(pid) && !_helpers.ContainsKey(pid))
            {
                _unclaimed[pid] = status;
            }

            return Math.Max(pid, 0);
        }
    }

    /// <summary>Records the end of a child that was reaped. False: it is not one of <see cref="SpawnHelper"/>.</summary>
    public bool EndHelper(int pid, int status)
    {
        lock (_lock)
        {
            if (!_helpers.ContainsKey(pid))
            {
                return false;
            }

            _helpers[pid] = status;
            Monitor.PulseAll(_lock);
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

    // A child that clones itself is waited for without the lock: a frozen cgroup may keep it for as long as its container likes.
    private void Spawn(ClonedChild child, Action spawn, Action? prepare, Action enter, Action<int> ended)
    {
        bool forks = child.Forks;
        lock (_lock)
        {
            if (forks)
            {
                _forking++;
            }
            else
            {
                spawn();
                enter();
            }
        }

        if (!forks)
        {
            prepare?.Invoke();
            return;
        }

        try
        {
            spawn();
            prepare?.Invoke();
            child.AwaitFork();
            lock (_lock)
            {
                if (_unclaimed.Remove(child.Pid, out int status))
                {
                    ended(status);
                    return;
                }

                child.OpenPidFd();
                enter();
            }
        }
        finally
        {
            lock (_lock)
            {
                if (--_forking == 0)
                {
                    _unclaimed.Clear();
                }
            }
        }
    }
}
