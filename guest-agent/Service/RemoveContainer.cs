using MicroVm.Agent.Cgroups;
using MicroVm.Agent.Containers;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

public sealed unsafe partial class AgentService
{
    // A killed process leaves its cgroup when it is scheduled once more, which takes long only on a loaded host.
    private const int RemoveAttempts = 600;
    private const int RemoveIntervalMilliseconds = 50;

    /// <inheritdoc/>
    protected override void RemoveContainer(RemoveContainerRequest request, TtrpcCall call)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(call);
        Container container = Find(request.ContainerId);
        if (container.Init!.State == ProcessState.Creating || container.Removing)
        {
            throw WrongState($"container \"{container.Id}\" is being {(container.Removing ? "removed" : "created")}");
        }

        if (!container.IsAlive && (container.Cgroup is null || TryRemove(container.Cgroup.Path)))
        {
            // The usual case: everything ended with the init, and no thread is needed to wait for it.
            FinishRemove(container, failure: null, call);
            return;
        }

        container.Removing = true;
        Kill(container);
        string? cgroup = container.Cgroup?.Path;
        SafeFd? init = container.IsAlive ? container.Init.Child!.PidFd!.Duplicate() : null;
        RunThread("remove", () =>
        {
            Exception? failure = Attempt(() =>
            {
                if (init is not null)
                {
                    WaitForEnd(init, Environment.TickCount64 + (RemoveAttempts * RemoveIntervalMilliseconds));
                    init.Dispose();
                }

                if (cgroup is not null)
                {
                    RemoveCgroup(cgroup);
                }
            });
            _loop.Post(() => FinishRemove(container, failure, call));
        });
    }

    private static void Kill(Container container)
    {
        if (container.Cgroup is not null)
        {
            // Killing frozen processes works, too; they end when they thaw, which killing makes them do.
            TryDo(container.Cgroup.Kill);
        }

        if (container.IsAlive)
        {
            TryDo(() => container.Init!.Child!.Signal(Libc.SIGKILL));
        }
    }

    // Until the process has ended, or the time (Environment.TickCount64) has come.
    private static void WaitForEnd(SafeFd pidfd, long deadline)
    {
        Libc.pollfd pfd = new() { fd = pidfd.Value, events = Libc.POLLIN };
        // SIGCHLD, which tells of this very end, interrupts the wait.
        while (Libc.poll(&pfd, 1, (int)Math.Clamp(deadline - Environment.TickCount64, 0, int.MaxValue)) < 0
            && Check.LastErrno == Errno.EINTR)
        {
        }
    }

    private static bool TryRemove(string cgroup)
    {
        bool removed = false;
        TryDo(() => removed = CgroupTree.Remove(cgroup));
        return removed;
    }

    private static void RemoveCgroup(string path)
    {
        for (int i = 0; i < RemoveAttempts; i++)
        {
            if (CgroupTree.Remove(path))
            {
                return;
            }

            Thread.Sleep(RemoveIntervalMilliseconds);
        }

        throw new LinuxException(Errno.EBUSY, "rmdir", path);
    }

    private void FinishRemove(Container container, Exception? failure, TtrpcCall call)
    {
        if (failure is not null)
        {
            container.Removing = false;
            call.Fail(StatusCode.Internal, $"cannot remove container \"{container.Id}\": {failure.Message}");
            return;
        }

        _containers.Remove(container.Id);
        foreach (ContainerProcess process in container.Execs.Values.Append(container.Init!))
        {
            if (process.State != ProcessState.Exited)
            {
                // Its child has ended and is reaped by a later event of the loop.
                _ = _context.Processes.Remove(process.Child?.Pid ?? 0);
                process.SetExited(Libc.SIGKILL, oomKilled: false);
            }
        }

        _oomWaiters.Where(w => w.Container == container).ToList()
            .ForEach(w => w.Call.Fail(StatusCode.NotFound, $"container \"{container.Id}\" was removed"));
        foreach (Mount mount in container.Spec.Mounts)
        {
            if (mount.Grows)
            {
                _context.FileSystems.DropGrowing(mount.FsTag, mount.Source);
            }

            if (mount.Kind == Mount.Types.Kind.Shared)
            {
                _context.FileSystems.DropShared(mount.Source);
            }

            if (mount.Socket is not null)
            {
                _sockets.Drop(mount.Socket.Port);
            }
        }

        container.Dispose();
        call.Complete(new Empty());
    }
}
