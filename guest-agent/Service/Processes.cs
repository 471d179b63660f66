using MicroVm.Agent.Child;
using MicroVm.Agent.Containers;
using MicroVm.Agent.Rootfs;
using MicroVm.Agent.Stdio;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

public sealed partial class AgentService
{
    /// <inheritdoc/>
    protected override void ExecProcess(ExecProcessRequest request, TtrpcCall call)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(call);
        Container container = Find(request.ContainerId);
        if (request.ExecId.Length == 0 || request.Process is null)
        {
            throw new TtrpcException(StatusCode.InvalidArgument, "an exec needs an id and a process");
        }

        if (container.Init!.State is not (ProcessState.Running or ProcessState.Created or ProcessState.Starting) || container.Removing)
        {
            throw WrongState("cannot exec in a stopped container");
        }

        if (container.Paused && !request.IgnorePaused)
        {
            throw WrongState("cannot exec in a paused container (use --ignore-paused to override)");
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
            process = new(container, request.ExecId, request.Process, new ProcessStdio(_streams, request.Stdio, request.Process.Terminal));
        }
        catch (SetupException e)
        {
            throw new TtrpcException(StatusCode.Internal, e.Message, e);
        }

        container.Execs.Add(request.ExecId, process);
        SafeFd init = container.Init.Child!.PidFd!.Duplicate();
        ExecSetup setup = new(_context, process, init, request.Cgroup);
        RunThread("exec", () =>
        {
            Exception? failure = Attempt(setup.Run);
            init.Dispose();
            _loop.Post(() => FinishExec(process, failure, call));
        });
    }

    /// <inheritdoc/>
    protected override void SignalProcess(SignalProcessRequest request, TtrpcCall call)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(call);
        ContainerProcess process = FindProcess(request.ContainerId, request.ExecId);
        if (request.All)
        {
            SignalAll(process.Container, (int)request.Signal);
            call.Complete(new Empty());
            return;
        }

        if (process.State is ProcessState.Creating or ProcessState.Exited)
        {
            throw WrongState(process.State == ProcessState.Creating ? "the process is being created" : "os: process already finished");
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
                throw WrongState("os: process already finished");
            }
        }
        catch (LinuxException e)
        {
            throw new TtrpcException(StatusCode.InvalidArgument, $"signal {signal}: {ChildReport.Text(e.Errno)}", e);
        }

        call.Complete(new Empty());
    }

    /// <inheritdoc/>
    protected override void WaitProcess(ProcessId request, TtrpcCall call)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(call);
        ContainerProcess process = FindProcess(request.ContainerId, request.ExecId);
        if (process.Exit is not null)
        {
            call.Complete(process.Exit);
            return;
        }

        process.Waiters.RemoveAll(c => c.IsOver);
        process.Waiters.Add(call);
    }

    /// <inheritdoc/>
    protected override void TtyWinResize(TtyWinResizeRequest request, TtrpcCall call)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(call);
        ContainerProcess process = FindMade(request.ContainerId, request.ExecId);
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
            throw WrongState(e.Message);
        }

        call.Complete(new Empty());
    }

    /// <inheritdoc/>
    protected override void TtyHangUp(ProcessId request, TtrpcCall call)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(call);
        ContainerProcess process = FindMade(request.ContainerId, request.ExecId);
        process.Stdio.HangUp();
        call.Complete(new Empty());
    }

    /// <inheritdoc/>
    protected override void ListProcesses(ContainerId request, TtrpcCall call)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(call);
        Container container = Find(request.ContainerId_);
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
        and not (Libc.SIGCHLD or Libc.SIGCONT or Libc.SIGWINCH or Libc.SIGSTOP or Libc.SIGTSTP or Libc.SIGTTIN or Libc.SIGTTOU or 23);

    private static void SignalAll(Container container, int signal)
    {
        if (container.Cgroup is null)
        {
            throw WrongState("the container has no cgroup that would say which its processes are");
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

    private void FinishExec(ContainerProcess process, Exception? failure, TtrpcCall call)
    {
        if (failure is not null)
        {
            process.Container.Execs.Remove(process.ExecId);
            process.Dispose();
            call.Fail(StatusCode.Internal, $"unable to start container process: {failure.Message}");
            return;
        }

        process.State = ProcessState.Running;
        process.Stdio.Start(_loop);
        call.Complete(new ExecProcessResponse { Pid = process.Child!.Pid });
        if (process.EarlyStatus is { } status)
        {
            OnExited(process, status);
        }
    }

    private ContainerProcess FindMade(string containerId, string execId)
    {
        ContainerProcess process = FindProcess(containerId, execId);
        return process.State == ProcessState.Creating ? throw WrongState("the process is being created") : process;
    }
}
