using MicroVm.Agent.Child;
using MicroVm.Agent.Containers;
using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>Signals, waits, terminals and the list of a container's processes.</summary>
internal sealed class ProcessControl(AgentState agent)
{
    internal void Signal(SignalProcessRequest request, TtrpcCall call)
    {
        ContainerProcess process = agent.Containers.FindProcess(request.ContainerId, request.ExecId);
        if (request.All)
        {
            SignalAll(process.Container, (int)request.Signal);
            call.Complete(new Empty());
            return;
        }

        if (process.State is ProcessState.Creating or ProcessState.Exited)
        {
            throw Refusal.WrongState(process.State == ProcessState.Creating ? "the process is being created" : "os: process already finished");
        }

        int signal = (int)request.Signal;
        try
        {
            if (process.State == ProcessState.Created && process.ExecId.Length == 0 && EndsByDefault(signal))
            {
                // The init of a PID namespace takes no signal that it has no handler for, and it is not the program yet that
                // could have one; runc's init dies of it, too.
                process.EndedBySignal = (uint)signal;
                signal = Libc.SIGKILL;
            }

            if (!process.Child!.Signal(signal))
            {
                throw Refusal.WrongState("os: process already finished");
            }
        }
        catch (LinuxException e)
        {
            throw new TtrpcException(StatusCode.InvalidArgument, $"signal {signal}: {ChildReport.Text(e.Errno)}", e);
        }

        call.Complete(new Empty());
    }

    internal void Wait(ProcessId request, TtrpcCall call)
    {
        ContainerProcess process = agent.Containers.FindProcess(request.ContainerId, request.ExecId);
        if (process.Exit is not null)
        {
            call.Complete(process.Exit);
            return;
        }

        process.Waiters.RemoveAll(c => c.IsOver);
        process.Waiters.Add(call);
    }

    internal void ResizeTerminal(TtyWinResizeRequest request, TtrpcCall call)
    {
        ContainerProcess process = FindCreated(request.ContainerId, request.ExecId);
        try
        {
            process.Stdio.Resize(request.Width, request.Height);
            if (request.HasPlainNewlines)
            {
                process.Stdio.SetNewlines(request.PlainNewlines);
            }
        }
        catch (Exception e) when (e is SetupException or LinuxException)
        {
            throw Refusal.WrongState(e.Message);
        }

        call.Complete(new Empty());
    }

    internal void HangUpTerminal(ProcessId request, TtrpcCall call)
    {
        ContainerProcess process = FindCreated(request.ContainerId, request.ExecId);
        process.Stdio.HangUp();
        call.Complete(new Empty());
    }

    internal void List(ContainerId request, TtrpcCall call)
    {
        Container container = agent.Containers.Find(request.ContainerId_);
        ListProcessesResponse response = new();
        if (container.Cgroup is not null)
        {
            response.Pids.AddRange(container.Cgroup.Processes());
        }
        else if (container.IsAlive)
        {
            response.Pids.Add(container.Init!.Child!.Pid);
        }

        call.Complete(response);
    }

    private static bool EndsByDefault(int signal) => signal is > 0 and < 32
        and not (Libc.SIGCHLD or Libc.SIGCONT or Libc.SIGWINCH or Libc.SIGSTOP or Libc.SIGTSTP or Libc.SIGTTIN or Libc.SIGTTOU or Libc.SIGURG);

    private static void SignalAll(Container container, int signal)
    {
        if (container.Cgroup is null)
        {
            throw Refusal.WrongState("the container has no cgroup that would say which its processes are");
        }

        if (signal == Libc.SIGKILL)
        {
            container.Cgroup.Kill();
            return;
        }

        foreach (int pid in container.Cgroup.Processes())
        {
            // One that ended meanwhile has nothing to receive.
            _ = Libc.kill(pid, signal);
        }
    }

    private ContainerProcess FindCreated(string containerId, string execId)
    {
        ContainerProcess process = agent.Containers.FindProcess(containerId, execId);
        return process.State == ProcessState.Creating ? throw Refusal.WrongState("the process is being created") : process;
    }
}
