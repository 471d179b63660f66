using System.Globalization;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Tracing;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Streams;
using MicroVm.Sandbox.Tracing;
using MicroVm.Sandbox.Vm;
using TraceStep = MicroVm.VmmControl.TraceStep;

namespace MicroVm.Sandbox.Pods;

/// <summary>
/// A container of the sandbox process between the command that creates it and the proxy that stands for it: what it is asked for
/// comes from the one, its signals from the other, and both get its exit status.
/// </summary>
internal sealed class ContainerHost : IDisposable
{
    private readonly ProxyRequest _request;
    private readonly ProxyCaller _caller;
    private readonly ProxyLink _proxy;
    private readonly GuestProcess _process;
    private readonly Action<LineChannel, int>? _join;
    private PodSandbox? _sandbox;
    private ContainerRecord? _record;
    private SandboxContainer? _container;
    private ContainerControlServer? _control;
    private ProcessIdentity? _proxyProcess;
    private bool _terminal;
    private volatile bool _abandoned;

    /// <summary>For a container that is about to be created.</summary>
    /// <param name="request">What is asked for.</param>
    /// <param name="caller">Who asks.</param>
    /// <param name="proxy">Its proxy; owned.</param>
    /// <param name="streams">Its streams on the host; owned.</param>
    /// <param name="join">Takes a command that wants to have a container in this one's VM.</param>
    internal ContainerHost(ProxyRequest request, ProxyCaller caller, ProxyLink proxy, ProcessStreams streams, Action<LineChannel, int>? join)
    {
        (_request, _caller, _proxy, _join) = (request, caller, proxy, join);
        _process = new GuestProcess(request, "", streams, caller.Log, proxy.Control);
    }

    /// <summary>The container; only after <see cref="Begin"/>.</summary>
    internal SandboxContainer Container => _container ?? throw new InvalidOperationException("there is no container yet");

    /// <summary>Takes the id, and makes the cgroup on the host.</summary>
    /// <param name="state">The first state, without processes.</param>
    /// <param name="store">Keeps it.</param>
    /// <param name="cgroup">The cgroup.</param>
    /// <param name="proxy">The proxy.</param>
    /// <exception cref="SandboxException">The id is in use, or the cgroup cannot be made.</exception>
    internal void TakeId(ContainerState state, ContainerStore store, HostCgroup cgroup, ProcessIdentity proxy)
    {
        _proxyProcess = proxy;
        _record = ContainerRecord.Create(store, state with { Init = proxy, Sandbox = ProcessIdentity.Current });
        cgroup.WarnOfProcesses(Warn);
        cgroup.Create();
    }

    /// <summary>Makes the container a member of its VM.</summary>
    /// <param name="sandbox">The VM.</param>
    /// <param name="store">Keeps the configuration.</param>
    /// <param name="spec">The configuration, parsed.</param>
    /// <exception cref="SandboxException">The VM's last container has ended meanwhile, or the configuration cannot be kept.</exception>
    internal void Begin(PodSandbox sandbox, ContainerStore store, Spec spec)
    {
        _sandbox = sandbox;
        _terminal = spec.Process?.Terminal ?? false;
        _container = SandboxContainer.Enter(
            sandbox, _record!, store.FolderOf(_request.Id), _request.Configuration, spec, _process, _request.Vm!.StartTimeout, _caller.Log);
    }

    /// <summary>
    /// Serves commands, and waits until the caller has done its part, which runs hooks and writes the pid file; a caller that dies over it
    /// takes the container with it.
    /// </summary>
    /// <param name="store">Where the control socket is to be.</param>
    /// <param name="whileCallerWorks">Done meanwhile.</param>
    /// <returns>False when the caller is gone.</returns>
    /// <exception cref="SandboxException">The state cannot be written.</exception>
    internal bool HandOver(ContainerStore store, Action whileCallerWorks)
    {
        _control = ContainerControlServer.Start(store.FolderOf(_request.Id), Answer, _join);
        if (!_caller.Send(new ProxyMessage { Kind = ProxyMessageKind.Created, State = _record!.State, Terminal = _terminal }))
        {
            return false;
        }

        whileCallerWorks();
        if (!_caller.WaitForProceed())
        {
            return false;
        }

        _record.Change(s => s with { Status = ContainerStatus.Created });
        _proxy.Start(signal => _process.Deliver(signal), Container.Kill);

        // The terminal's new owner may have set its size before.
        _process.FollowTerminal();
        _caller.Log(LogLevel.Debug, "created");
        _caller.Send(new ProxyMessage { Kind = ProxyMessageKind.Ready });
        if (_request.Foreground)
        {
            _caller.Watch(() =>
            {
                _abandoned = true;
                Container.Kill();
            });
        }
        else
        {
            _caller.Release();
        }

        return true;
    }

    /// <summary>Waits for the container's end, and undoes what it had; the last one's end is the VM's.</summary>
    /// <param name="endSandbox">Ends the VM and all that belongs to it; told whether this process is to leave the container's cgroup.</param>
    internal void WaitForEnd(Action<bool> endSandbox)
    {
        ExitStatus exit = new(0, Libc.SIGKILL);
        bool outOfMemory = false;
        try
        {
            WaitProcessResponse end = Wait();
            outOfMemory = end.OomKilled;
            exit = ProcessEnd.Of(end);
        }
        catch (SandboxException e)
        {
            _caller.Fail(e.Message);
        }

        // Whoever had a hand in the end is to hear of it: the VMM is looked at by calls that are under way.
        _control!.Finish();
        if (outOfMemory)
        {
            _caller.Log(LogLevel.Warning, $"container {_request.Id} was killed: out of memory (linux.resources.memory.limit, or the VM's memory)");
        }

        IReadOnlyList<TraceTrack> ofVm = _request.Trace && _request.Foreground ? TryReadVm() : [];
        bool last = _sandbox!.TakeOut(Container, () => endSandbox(_abandoned), Warn);
        if (!last)
        {
            _process.Dispose();
        }

        if (outOfMemory)
        {
            TellHost();
        }

        if (_abandoned)
        {
            Undo();
        }
        else if (!last)
        {
            Note(ContainerStatus.Stopped);
        }

        _control?.Dispose();
        if (ofVm.Count > 0)
        {
            _ = _caller.Send(new ProxyMessage { Kind = ProxyMessageKind.Trace, Tracks = [Track(), .. ofVm] });
        }

        EndProxy(exit);
    }

    private ControlReply Answer(ControlCall call) => call.Verb == ControlVerb.Trace
        ? new ControlReply { Tracks = [Track(), .. VmTrace.Read(_sandbox!.Vmm, _sandbox.Guest, _request.Began)] }
        : Container.Commands.Answer(call);

    /// <summary>What this process did since the caller began.</summary>
    private TraceTrack Track() => new()
    {
        Process = string.Create(CultureInfo.InvariantCulture, $"microvm sandbox {Environment.ProcessId}"),
        Steps = UntrustedSteps.Check(TraceStep.Of(_sandbox!.Trace), _request.Began, StepRecorder.Now),
    };

    // A VM that has ended has no trace any more.
    private IReadOnlyList<TraceTrack> TryReadVm()
    {
        using StepScope step = _sandbox!.Trace.Begin("read the VM's trace");
        try
        {
            return VmTrace.Read(_sandbox.Vmm, _sandbox.Guest, _request.Began);
        }
        catch (SandboxException e)
        {
            Warn($"the trace lacks the VM: {e.Message}");
            return [new TraceTrack { Process = "microvm-vmm" }];
        }
    }

    /// <summary>Waits for the init's end, and for the rest of its output.</summary>
    /// <exception cref="SandboxException">The VM ended, and why.</exception>
    private WaitProcessResponse Wait()
    {
        try
        {
            WaitProcessResponse end = _sandbox!.Guest.WaitProcess(_request.Id);

            // An agent that lies is one that is lost: nothing more is waited for.
            _ = ProcessEnd.Of(end);
            Container.Commands.End(end.OomKilled);
            _process.Drain();
            return end;
        }
        catch (SandboxException)
        {
            Container.Commands.End(outOfMemory: false);
            _process.DrainAfterLoss();
            throw;
        }
    }

    private void Warn(string text) => _caller.Log(LogLevel.Warning, text);

    /// <summary>One that is stopped takes no message: nothing but SIGKILL ends it as it is, and the others it takes once it goes on.</summary>
    private void EndProxy(ExitStatus exit)
    {
        _proxy.End(exit);
        _proxyProcess!.Signal(exit.Signal == Libc.SIGKILL ? Libc.SIGKILL : Libc.SIGCONT);
    }

    /// <summary>Undoes a creation that failed, and tells the caller why; null: it is gone.</summary>
    /// <param name="why">The reason that the caller gets.</param>
    /// <param name="endSandbox">As for <see cref="WaitForEnd"/>: all others may have left meanwhile.</param>
    internal void Fail(string? why, Action<bool> endSandbox)
    {
        if (_container is not null && _sandbox is not null)
        {
            _ = _sandbox.TakeOut(_container, () => endSandbox(true), Warn);
        }

        ContainerState? state = _record?.State;
        Undo();
        if (why is not null)
        {
            _caller.Fail(why, state);
        }
    }

    /// <summary>Begins to end.</summary>
    internal void Stop() => _container?.Stop();

    public void Dispose()
    {
        _control?.Dispose();
        _container?.Dispose();
        _process.Dispose();
        _proxy.Dispose();
        _caller.Dispose();
    }

    /// <summary>Takes away what the host has of the container: its proxy, cgroup and state.</summary>
    private void Undo()
    {
        _control?.Dispose();
        _proxy.Dispose();
        if (_record is null)
        {
            return;
        }

        // A cgroup can be removed once nothing is in it.
        _ = _proxyProcess!.WaitForEnd(GuestPatience.Kill);
        try
        {
            _ = new HostCgroup(_record.State.Cgroups!).Remove();
            _record.Delete();
        }
        catch (SandboxException e)
        {
            _caller.Log(LogLevel.Warning, e.Message);
        }

        _record = null;
    }

    /// <summary>Callers that watch the container's cgroup on the host learn of the kill, too.</summary>
    private void TellHost()
    {
        try
        {
            _ = OutOfMemoryVictim.Offer(Container.Cgroup);
        }
        catch (Exception e) when (e is SandboxException or LinuxException)
        {
            _caller.Log(LogLevel.Debug, $"callers that watch the cgroup are not told that memory ran out: {e.Message}");
        }
    }

    /// <summary>What has happened in the guest is not undone because the host's disk is full.</summary>
    private void Note(ContainerStatus status)
    {
        try
        {
            _record!.Change(s => s with { Status = status });
        }
        catch (SandboxException e)
        {
            _caller.Log(LogLevel.Warning, e.Message);
        }
    }
}
