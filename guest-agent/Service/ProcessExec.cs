using MicroVm.Agent.Containers;
using MicroVm.Agent.Rootfs;
using MicroVm.Agent.Stdio;
using MicroVm.Linux;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>Executes further processes in running containers.</summary>
/// <param name="agent">The agent's state.</param>
/// <param name="ends">Is given the end of a process that ended before its exec was answered.</param>
internal sealed class ProcessExec(AgentState agent, ProcessEnds ends)
{
    internal void Exec(ExecProcessRequest request, TtrpcCall call)
    {
        Container container = agent.Containers.Find(request.ContainerId);
        if (request.ExecId.Length == 0 || request.Process is null)
        {
            throw new TtrpcException(StatusCode.InvalidArgument, "an exec needs an id and a process");
        }

        if (container.Init!.State is not (ProcessState.Running or ProcessState.Created or ProcessState.Starting) || container.Removing)
        {
            throw Refusal.WrongState("cannot exec in a stopped container");
        }

        if (container.Paused && !request.IgnorePaused)
        {
            throw Refusal.WrongState("cannot exec in a paused container (use --ignore-paused to override)");
        }

        if (container.Execs.TryGetValue(request.ExecId, out ContainerProcess? old))
        {
            if (old.State != ProcessState.Exited)
            {
                throw new TtrpcException(StatusCode.AlreadyExists, $"process \"{request.ExecId}\" exists already");
            }

            old.Dispose();
            container.Execs.Remove(request.ExecId);
        }

        ContainerProcess process;
        try
        {
            process = new(container, request.ExecId, request.Process, new ProcessStdio(agent.Streams, request.Stdio, request.Process.Terminal));
        }
        catch (SetupException e)
        {
            throw new TtrpcException(StatusCode.Internal, e.Message, e);
        }

        container.Execs.Add(request.ExecId, process);
        SafeFd init = container.Init.Child!.PidFd!.Duplicate();
        ExecSetup setup = new(agent.Setup, process, init, request.Cgroup);
        Background.Run("exec", () =>
        {
            Exception? failure = Background.Attempt(setup.Run);
            init.Dispose();
            agent.Loop.Post(() => Finish(process, failure, call));
        });
    }

    private void Finish(ContainerProcess process, Exception? failure, TtrpcCall call)
    {
        if (failure is not null)
        {
            process.Container.Execs.Remove(process.ExecId);
            process.Dispose();
            call.Fail(StatusCode.Internal, $"unable to start container process: {failure.Message}");
            return;
        }

        process.State = ProcessState.Running;
        process.Stdio.Start(agent.Loop);
        call.Complete(new ExecProcessResponse { Pid = process.Child!.Pid });
        if (process.EarlyStatus is { } status)
        {
            ends.OnExited(process, status);
        }
    }
}
