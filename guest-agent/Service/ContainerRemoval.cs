using MicroVm.Agent.Containers;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>Removes containers: kills what is left, and gives back their files.</summary>
internal sealed class ContainerRemoval(AgentState agent, OomEvents oom)
{
    internal void Remove(RemoveContainerRequest request, TtrpcCall call)
    {
        Container container = agent.Containers.Find(request.ContainerId);
        if (container.Init!.State == ProcessState.Creating || container.Removing)
        {
            throw Refusal.WrongState($"container \"{container.Id}\" is being {(container.Removing ? "removed" : "created")}");
        }

        if (!container.IsAlive && (container.Cgroup is null || CgroupRemoval.TryRemove(container.Cgroup.Path)))
        {
            // The usual case: everything ended with the init, and no thread is needed to wait for it.
            Finish(container, failure: null, call);
            return;
        }

        container.Removing = true;
        Kill(container);
        string? cgroup = container.Cgroup?.Path;
        SafeFd? init = container.IsAlive ? container.Init.Child!.PidFd!.Duplicate() : null;
        Background.Run("remove", () =>
        {
            Exception? failure = Background.Attempt(() =>
            {
                if (init is not null)
                {
                    PidFd.WaitForEnd(init, Environment.TickCount64 + CgroupRemoval.PatienceMilliseconds);
                    init.Dispose();
                }

                if (cgroup is not null)
                {
                    CgroupRemoval.Remove(cgroup);
                }
            });
            agent.Loop.Post(() => Finish(container, failure, call));
        });
    }

    /// <summary>Kills all of a container's processes.</summary>
    internal static void Kill(Container container)
    {
        if (container.Cgroup is not null)
        {
            // Killing frozen processes works, too; they end when they thaw, which killing makes them do.
            Background.TryOrWarn(container.Cgroup.Kill);
        }

        if (container.IsAlive)
        {
            Background.TryOrWarn(() => container.Init!.Child!.Signal(Libc.SIGKILL));
        }
    }

    private void Finish(Container container, Exception? failure, TtrpcCall call)
    {
        if (failure is not null)
        {
            container.Removing = false;
            call.Fail(StatusCode.Internal, $"cannot remove container \"{container.Id}\": {failure.Message}");
            return;
        }

        agent.Containers.Remove(container);
        foreach (ContainerProcess process in container.Execs.Values.Append(container.Init!))
        {
            if (process.State != ProcessState.Exited)
            {
                // Its child has ended and is reaped by a later event of the loop.
                _ = agent.Setup.Processes.Remove(process.Child?.Pid ?? 0);
                process.SetExited(Libc.SIGKILL, oomKilled: false);
            }
        }

        oom.OnRemoved(container);
        agent.DropSources(container);
        container.Dispose();
        call.Complete(new Empty());
    }
}
