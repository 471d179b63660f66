using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Plan;
using MicroVm.Sandbox.Pods;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.Runtime;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;
using MicroVm.Shim.Streams;
using MicroVm.Ttrpc;
using Process = MicroVm.Oci.Config.Process;

namespace MicroVm.Shim.Containers;

/// <summary>A container in the shim's VM, as <see cref="VmContainerFactory"/> makes it.</summary>
internal sealed class VmContainer : ITaskContainer
{
    private readonly ContainerRequest _request;
    private readonly ShimSandbox _sandbox;
    private readonly SandboxContainer _container;
    private readonly Lock _endLock = new();
    private bool _left;

    /// <summary>A container that was created.</summary>
    /// <param name="request">What it was created from.</param>
    /// <param name="sandbox">Its VM.</param>
    /// <param name="container">The container in there; owned.</param>
    /// <param name="init">Its first process; owned.</param>
    internal VmContainer(ContainerRequest request, ShimSandbox sandbox, SandboxContainer container, VmProcess init)
    {
        (_request, _sandbox, _container, Init) = (request, sandbox, container, init);
        Pid = sandbox.Pod.Vmm.Process.Pid;
    }

    /// <inheritdoc/>
    public int Pid { get; }

    /// <inheritdoc/>
    public ITaskProcess Init { get; }

    /// <inheritdoc/>
    public void Start()
    {
        Ask(new ControlCall { Verb = ControlVerb.Start });
        ContainerState state = _container.Record.State;
        try
        {
            HookRunner.Run("poststart", state.Hooks?.Poststart, state.ToOci(ContainerStatus.Running));
        }
        catch (SandboxException)
        {
            Warn(() => Signal(Libc.SIGKILL, all: true));
            throw;
        }
    }

    /// <inheritdoc/>
    public ITaskProcess Exec(Process process, StdioUris uris, (uint Width, uint Height) size)
    {
        List<string> warnings = [];
        ExecProcessRequest exec = new()
        {
            ContainerId = _request.Id,
            ExecId = Guid.NewGuid().ToString("N"),
            Process = ProcessPlan.Build(process, _container.Configuration.Spec.Linux ?? new Oci.Config.Linux(), warnings),
        };
        exec.Process.Terminal = uris.Terminal;
        if (size.Width > 0 && size.Height > 0)
        {
            (exec.Process.ConsoleWidth, exec.Process.ConsoleHeight) = size;
        }

        CallerLimits.Add(exec.Process);
        HomeDirectory.Add(exec.Process, _container.Record.State.Rootfs);
        warnings.ForEach(w => _request.Log.Write(LogLevel.Warning, w));
        VmProcess started = new(
            new ProcessId { ContainerId = _request.Id, ExecId = exec.ExecId }, StdioEnds.Open(uris, new ProcessName(_request.Namespace, _request.Id)), GuestPatience.Call);
        try
        {
            AgentClient agent = _sandbox.Pod.Guest.Agent;
            exec.Stdio = started.Connect(_sandbox.Pod.Vsock, exec.Process);
            _ = agent.ExecProcess(exec, GuestPatience.Exec);
            started.Begin(agent);
            return started;
        }
        catch (Exception e)
        {
            started.Close();
            if (e is TtrpcException or ObjectDisposedException or LinuxException)
            {
                throw _sandbox.Pod.Guest.Refusal(e);
            }

            throw;
        }
    }

    /// <inheritdoc/>
    public void Signal(int signal, bool all) => Ask(new ControlCall { Verb = ControlVerb.Signal, Signal = signal, All = all });

    /// <inheritdoc/>
    public void Pause() => Ask(new ControlCall { Verb = ControlVerb.Pause });

    /// <inheritdoc/>
    public void Resume() => Ask(new ControlCall { Verb = ControlVerb.Resume });

    /// <inheritdoc/>
    public void Update(Resources change) => Ask(new ControlCall { Verb = ControlVerb.Update, Change = change }).Warnings?.ForEach(w => _request.Log.Write(LogLevel.Warning, w));

    /// <inheritdoc/>
    public ContainerFigures Statistics()
    {
        ControlReply reply = Ask(new ControlCall { Verb = ControlVerb.Stats });
        return new ContainerFigures(reply.Files!, reply.Interfaces!);
    }

    /// <inheritdoc/>
    public void FollowOutOfMemory(Action killed)
    {
        long known = 0;
        while (true)
        {
            ControlReply reply = Ask(new ControlCall { Verb = ControlVerb.OutOfMemory, Known = known });
            for (; known < reply.Kills; known++)
            {
                killed();
            }

            if (reply.Ended)
            {
                return;
            }
        }
    }

    /// <inheritdoc/>
    public void NoteEnd(bool outOfMemory) => _container.Commands.End(outOfMemory);

    /// <inheritdoc/>
    public void End()
    {
        lock (_endLock)
        {
            if (_left)
            {
                return;
            }

            _left = true;
            _container.Commands.End(outOfMemory: false);
            _sandbox.TakeOut(_container, w => _request.Log.Write(LogLevel.Warning, w));
            Warn(() => _container.Record.Change(s => s with { Status = ContainerStatus.Stopped }));
        }
    }

    /// <inheritdoc/>
    public void Delete()
    {
        End();
        Init.Close();
        ContainerState state = _container.Record.State;
        _ = _container.Cgroup.Remove();
        _container.Record.Delete();
        Warn(() => HookRunner.Run("poststop", state.Hooks?.Poststop, state.ToOci(ContainerStatus.Stopped)));
    }

    private ControlReply Ask(ControlCall call) => _container.Commands.Answer(call);

    private void Warn(Action action)
    {
        try
        {
            action();
        }
        catch (SandboxException e)
        {
            _request.Log.Write(LogLevel.Warning, e.Message);
        }
    }
}
