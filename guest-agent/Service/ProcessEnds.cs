using MicroVm.Agent.Containers;
using MicroVm.Linux.Native;
using MicroVm.Linux.Tracing;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Service;

/// <summary>Records the ends of the agent's children.</summary>
internal sealed class ProcessEnds(AgentState agent, ContainerStart start, OomEvents oom)
{
    /// <summary>Records the end of a child; other ids are ignored.</summary>
    /// <param name="pid">The child.</param>
    /// <param name="status">As waitpid(2) reports it.</param>
    internal void OnChildExited(int pid, int status)
    {
        if (agent.Setup.Processes.EndHelper(pid, status))
        {
            return;
        }

        ContainerProcess? process = agent.Setup.Processes.Remove(pid);
        if (process is { State: ProcessState.Creating })
        {
            // Its setup fails by itself.
            process.EarlyStatus = status;
        }
        else if (process is not null)
        {
            OnExited(process, status);
        }
    }

    /// <summary>Records the end of a process that was created.</summary>
    internal void OnExited(ContainerProcess process, int status)
    {
        Container container = process.Container;
        bool isInit = process.ExecId.Length == 0, oomKilled = false;
        if (container.Cgroup is not null)
        {
            oom.Count(container);
            oomKilled = container.OomKills > 0 && ((status & 0x7f) == Libc.SIGKILL || isInit);
        }

        start.OnExited(process);
        if (process.StepBegan != 0)
        {
            agent.Setup.Trace.Add("the init runs", process.StepBegan, StepRecorder.Now, ContainerStart.LaneOf(process));
        }

        process.SetExited(status, oomKilled);
        if (!isInit)
        {
            container.Retire(process);
            return;
        }

        agent.Readiness.End(container.Id);
        if (container.Cgroup is not null && !container.HasOwn(Namespace.Types.Kind.Pid))
        {
            // Without a PID namespace of its own nothing else ends what the init leaves behind.
            Background.TryOrWarn(container.Cgroup.Kill);
        }
    }
}
