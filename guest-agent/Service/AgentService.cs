using MicroVm.Agent.Cgroups;
using MicroVm.Agent.Containers;
using MicroVm.Agent.Stdio;
using MicroVm.Linux;
using MicroVm.Linux.Tracing;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>
/// The agent's service: hands each call to the type of its group. Everything happens on the loop's thread except for what waits
/// (<see cref="Background"/>).
/// </summary>
public sealed class AgentService : AgentServiceBase
{
    private readonly AgentState _state;
    private readonly OomEvents _oom;
    private readonly ContainerCreation _creation;
    private readonly ContainerStart _start;
    private readonly ContainerRemoval _removal;
    private readonly ContainerResources _resources;
    private readonly ProcessEnds _ends;
    private readonly ProcessExec _exec;
    private readonly ProcessControl _processes;
    private readonly MountChanges _mounts;
    private readonly GuestNetwork _network;
    private readonly GuestControl _guest;
    private readonly HostConnections _connections;
    private readonly GuestTrace _trace;

    /// <summary>Creates the service.</summary>
    /// <param name="loop">The agent's loop.</param>
    /// <param name="context">What setting up containers needs.</param>
    /// <param name="cgroups">The cgroup hierarchy.</param>
    /// <param name="streams">The host's stdio connections.</param>
    /// <param name="oom">Reports OOM kills.</param>
    /// <param name="powerOff">Ends the machine; called by Shutdown when containers are dead.</param>
    public AgentService(EventLoop loop, SetupContext context, CgroupTree cgroups, StreamTable streams, OomWatch oom, Action powerOff)
    {
        ArgumentNullException.ThrowIfNull(context);
        _state = new AgentState(loop, context, cgroups, streams);
        _oom = new OomEvents(_state.Containers, oom);
        _start = new ContainerStart(_state);
        _ends = new ProcessEnds(_state, _start, _oom);
        _creation = new ContainerCreation(_state, _ends, _oom);
        _removal = new ContainerRemoval(_state, _oom);
        _resources = new ContainerResources(_state);
        _exec = new ProcessExec(_state, _ends);
        _processes = new ProcessControl(_state);
        _mounts = new MountChanges(_state);
        _network = new GuestNetwork(_state);
        _guest = new GuestControl(_state, powerOff);
        _connections = new HostConnections(_state);
        _trace = new GuestTrace(context.Trace);
    }

    /// <summary>Records the end of a child; ids that are none of the agent's children are ignored.</summary>
    /// <param name="pid">The child.</param>
    /// <param name="status">As waitpid(2) reports it.</param>
    public void OnChildExited(int pid, int status) => _ends.OnChildExited(pid, status);

    /// <inheritdoc/>
    protected override void GetGuestDetails(GetGuestDetailsRequest request, TtrpcCall call) => _guest.ReadDetails(call);

    /// <inheritdoc/>
    protected override void CreateContainer(CreateContainerRequest request, TtrpcCall call)
    {
        using StepScope step = _state.Setup.Trace.Begin("check the container, mount its sources, make its cgroup");
        _creation.Create(request, call);
    }

    /// <inheritdoc/>
    protected override void StartContainer(ContainerId request, TtrpcCall call) => _start.Start(request, call);

    /// <inheritdoc/>
    protected override void ExecProcess(ExecProcessRequest request, TtrpcCall call) => _exec.Exec(request, call);

    /// <inheritdoc/>
    protected override void SignalProcess(SignalProcessRequest request, TtrpcCall call) => _processes.Signal(request, call);

    /// <inheritdoc/>
    protected override void WaitProcess(ProcessId request, TtrpcCall call) => _processes.Wait(request, call);

    /// <inheritdoc/>
    protected override void TtyWinResize(TtyWinResizeRequest request, TtrpcCall call) => _processes.ResizeTerminal(request, call);

    /// <inheritdoc/>
    protected override void TtyHangUp(ProcessId request, TtrpcCall call) => _processes.HangUpTerminal(request, call);

    /// <inheritdoc/>
    protected override void ListProcesses(ContainerId request, TtrpcCall call) => _processes.List(request, call);

    /// <inheritdoc/>
    protected override void StatsContainer(ContainerId request, TtrpcCall call) => _resources.ReadStatistics(request, call);

    /// <inheritdoc/>
    protected override void UpdateContainer(UpdateContainerRequest request, TtrpcCall call) => _resources.Update(request, call);

    /// <inheritdoc/>
    protected override void PauseContainer(ContainerId request, TtrpcCall call) => _resources.SetFrozen(request, call, frozen: true);

    /// <inheritdoc/>
    protected override void ResumeContainer(ContainerId request, TtrpcCall call) => _resources.SetFrozen(request, call, frozen: false);

    /// <inheritdoc/>
    protected override void RemoveContainer(RemoveContainerRequest request, TtrpcCall call) => _removal.Remove(request, call);

    /// <inheritdoc/>
    protected override void AwaitReadiness(ReadinessRequest request, TtrpcCall call) =>
        _state.Readiness.Await(request.ContainerId, _state.Containers.IsAlive(request.ContainerId), call);

    /// <inheritdoc/>
    protected override void GetOomEvent(GetOomEventRequest request, TtrpcCall call) => _oom.Await(request, call);

    /// <inheritdoc/>
    protected override void SetGuestDateTime(SetGuestDateTimeRequest request, TtrpcCall call)
    {
        using StepScope step = _state.Setup.Trace.Begin("set the clock");
        GuestControl.SetDateTime(request, call);
    }

    /// <inheritdoc/>
    protected override void ReseedRandomDev(ReseedRandomDevRequest request, TtrpcCall call)
    {
        using StepScope step = _state.Setup.Trace.Begin("reseed the random generator");
        GuestControl.Reseed(request, call);
    }

    /// <inheritdoc/>
    protected override void SetOnlineCpus(OnlineCpus request, TtrpcCall call) => GuestControl.SetOnlineCpus(request, call);

    /// <inheritdoc/>
    protected override void ConfigureNetwork(NetworkPlan request, TtrpcCall call)
    {
        using StepScope step = _state.Setup.Trace.Begin("configure the network");
        _network.Configure(request, call);
    }

    /// <inheritdoc/>
    protected override void RelayNames(NameRelayRequest request, TtrpcCall call) => _network.RelayNames(request, call);

    /// <inheritdoc/>
    protected override void ChangeMounts(ChangeMountsRequest request, TtrpcCall call) => _mounts.Apply(request, call);

    /// <inheritdoc/>
    protected override void ConnectSocket(ConnectSocketRequest request, TtrpcCall call) => _connections.Connect(request, call);

    /// <inheritdoc/>
    protected override void ConnectPort(ConnectPortRequest request, TtrpcCall call) => _connections.Connect(request, call);

    /// <inheritdoc/>
    protected override void PrepareToSave(Empty request, TtrpcCall call) => _guest.PrepareToSave(call);

    /// <inheritdoc/>
    protected override void ReadTrace(TraceRequest request, TtrpcCall call) => _trace.Read(request, call);

    /// <inheritdoc/>
    protected override void Shutdown(Empty request, TtrpcCall call) => _guest.Shutdown();
}
