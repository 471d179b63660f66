using MicroVm.Agent.Child;
using MicroVm.Linux;
using MicroVm.Linux.Child;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Containers;

/// <summary>Reaps every child of the agent, orphans that PID 1 inherits too, on the loop.</summary>
public sealed unsafe class Reaper : IEventHandler, IDisposable
{
    private readonly EventFd _children = new();
    private readonly Action<int, int> _exited;

    /// <summary>Takes SIGCHLD over for the whole process.</summary>
    /// <param name="loop">The loop.</param>
    /// <param name="exited">Called with the process id and wait(2)'s status of each child.</param>
    public Reaper(EventLoop loop, Action<int, int> exited)
    {
        ArgumentNullException.ThrowIfNull(loop);
        _exited = exited;
        loop.Add(_children.Fd, Libc.EPOLLIN, this);
        ChildCode.NotifyChildren(_children);
    }

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        _children.Drain();
        int status;
        int pid;
        while ((pid = Libc.waitpid(-1, &status, Libc.WNOHANG | Libc.__WALL)) > 0)
        {
            _exited(pid, status);
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _children.Dispose();
}
