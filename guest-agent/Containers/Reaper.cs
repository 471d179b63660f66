using MicroVm.Linux;
using MicroVm.Linux.Child;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Containers;

/// <summary>Reaps every child of the agent, orphans that PID 1 inherits too, on the loop.</summary>
public sealed class Reaper : IEventHandler, IDisposable
{
    private readonly EventFd _children = new();
    private readonly ProcessTable _processes;
    private readonly Action<int, int> _exited;

    /// <summary>Takes SIGCHLD over for the whole process.</summary>
    /// <param name="loop">The loop.</param>
    /// <param name="processes">The agent's children.</param>
    /// <param name="exited">Called with the process id and wait(2)'s status of each child.</param>
    public Reaper(EventLoop loop, ProcessTable processes, Action<int, int> exited)
    {
        ArgumentNullException.ThrowIfNull(loop);
        _processes = processes;
        _exited = exited;
        loop.Add(_children.Fd, Libc.EPOLLIN, this);
        ChildCode.NotifyChildren(_children);
    }

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        _children.Drain();
        int pid;
        while ((pid = _processes.Reap(out int status)) > 0)
        {
            _exited(pid, status);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _children.Dispose();
}
