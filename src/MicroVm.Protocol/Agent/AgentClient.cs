using MicroVm.Ttrpc;

namespace MicroVm.Protocol.Agent;

/// <summary>
/// The host's side of the agent's service (agent.proto): one blocking method for each rpc. Any number of threads may call
/// at once. Every method throws <see cref="TtrpcException"/>: the agent's status, Unavailable when the connection ended,
/// DeadlineExceeded after the timeout (<see cref="DefaultTimeout"/> where none is given; none for the calls that wait for
/// something to happen). Owns the connection.
/// </summary>
public sealed class AgentClient : IDisposable
{
    /// <summary>The service's full name.</summary>
    public const string ServiceName = "microvm.agent.v1.Agent";

    /// <summary>vsock port of the service in the guest.</summary>
    public const uint ServicePort = 1024;

    /// <summary>vsock port of stdio streams in the guest.</summary>
    public const uint StreamPort = 1025;

    /// <summary>Port on the host (context id 2) to which the agent connects once when it is ready.</summary>
    public const uint ReadyPort = 1024;

    private readonly TtrpcClient _client;

    /// <summary>Takes over a connected client.</summary>
    public AgentClient(TtrpcClient client) => _client = client;

    /// <summary>
    /// How long a call waits for its answer: generous while a guest starts, since its kernel code may be emulated; the owner shortens
    /// it once the container is there.
    /// </summary>
    public TimeSpan DefaultTimeout { get; set; } = TimeSpan.FromSeconds(120);

    /// <summary>Connects to the agent behind a VMM's hybrid vsock socket.</summary>
    /// <param name="vsockPath">The socket.</param>
    /// <param name="timeout">How long the agent may take to accept.</param>
    /// <param name="calls">The connection's <see cref="DefaultTimeout"/>; null for the usual one.</param>
    /// <exception cref="Linux.LinuxException">The VMM's socket does not exist or does not listen.</exception>
    /// <exception cref="TtrpcException">The agent does not listen (Unavailable) or answer in time (DeadlineExceeded).</exception>
    public static AgentClient Connect(string vsockPath, TimeSpan timeout, TimeSpan? calls = null)
    {
        TtrpcClient client = new(HybridVsock.Connect(vsockPath, ServicePort, timeout, out _));
        return calls is null ? new AgentClient(client) : new AgentClient(client) { DefaultTimeout = calls.Value };
    }

    /// <summary>What the guest is: versions, memory, CPUs, controllers.</summary>
    public GuestDetails GetGuestDetails(TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "GetGuestDetails", new GetGuestDetailsRequest(), GuestDetails.Parser, timeout ?? DefaultTimeout);

    /// <summary>Sets a container up to the point where its init waits to exec: state created.</summary>
    public CreateContainerResponse CreateContainer(CreateContainerRequest request, TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "CreateContainer", request, CreateContainerResponse.Parser, timeout ?? DefaultTimeout);

    /// <summary>Lets the init exec; answers when the exec succeeded.</summary>
    public Empty StartContainer(string containerId, TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "StartContainer", new ContainerId { ContainerId_ = containerId }, Empty.Parser, timeout ?? DefaultTimeout);

    /// <summary>Starts another process in a running container.</summary>
    public ExecProcessResponse ExecProcess(ExecProcessRequest request, TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "ExecProcess", request, ExecProcessResponse.Parser, timeout ?? DefaultTimeout);

    /// <summary>Sends a signal to a process or to every process of a container.</summary>
    public Empty SignalProcess(SignalProcessRequest request, TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "SignalProcess", request, Empty.Parser, timeout ?? DefaultTimeout);

    /// <summary>Answers when the process has ended.</summary>
    public WaitProcessResponse WaitProcess(ProcessId request, TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "WaitProcess", request, WaitProcessResponse.Parser, timeout ?? Timeout.InfiniteTimeSpan);

    /// <summary>Sets a terminal's size.</summary>
    public Empty TtyWinResize(TtyWinResizeRequest request, TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "TtyWinResize", request, Empty.Parser, timeout ?? DefaultTimeout);

    /// <summary>The container's processes, by their ids in the guest.</summary>
    public ListProcessesResponse ListProcesses(string containerId, TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "ListProcesses", new ContainerId { ContainerId_ = containerId }, ListProcessesResponse.Parser, timeout ?? DefaultTimeout);

    /// <summary>The container's cgroup files and interfaces.</summary>
    public ContainerStats StatsContainer(string containerId, TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "StatsContainer", new ContainerId { ContainerId_ = containerId }, ContainerStats.Parser, timeout ?? DefaultTimeout);

    /// <summary>Writes cgroup settings.</summary>
    public Empty UpdateContainer(UpdateContainerRequest request, TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "UpdateContainer", request, Empty.Parser, timeout ?? DefaultTimeout);

    /// <summary>Freezes the container's cgroup.</summary>
    public Empty PauseContainer(string containerId, TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "PauseContainer", new ContainerId { ContainerId_ = containerId }, Empty.Parser, timeout ?? DefaultTimeout);

    /// <summary>Thaws the container's cgroup.</summary>
    public Empty ResumeContainer(string containerId, TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "ResumeContainer", new ContainerId { ContainerId_ = containerId }, Empty.Parser, timeout ?? DefaultTimeout);

    /// <summary>Kills what is left of a container and forgets it.</summary>
    public Empty RemoveContainer(RemoveContainerRequest request, TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "RemoveContainer", request, Empty.Parser, timeout ?? DefaultTimeout);

    /// <summary>Answers when a container has more OOM kills than the caller knows of.</summary>
    public OomEvent GetOomEvent(GetOomEventRequest request, TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "GetOomEvent", request, OomEvent.Parser, timeout ?? Timeout.InfiniteTimeSpan);

    /// <summary>Sets the guest's clock.</summary>
    public Empty SetGuestDateTime(SetGuestDateTimeRequest request, TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "SetGuestDateTime", request, Empty.Parser, timeout ?? DefaultTimeout);

    /// <summary>Mixes entropy into the guest's random number generator.</summary>
    public Empty ReseedRandomDev(ReseedRandomDevRequest request, TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "ReseedRandomDev", request, Empty.Parser, timeout ?? DefaultTimeout);

    /// <summary>Brings added CPUs and memory on line.</summary>
    public Empty OnlineCpuMem(TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "OnlineCpuMem", new Empty(), Empty.Parser, timeout ?? DefaultTimeout);

    /// <summary>Brings the guest's interfaces, routes and neighbours to what the plan says.</summary>
    public Empty ConfigureNetwork(NetworkPlan plan, TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "ConfigureNetwork", plan, Empty.Parser, timeout ?? DefaultTimeout);

    /// <summary>Has the guest answer names on its loopback addresses through a stream.</summary>
    public Empty RelayNames(NameRelayRequest request, TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "RelayNames", request, Empty.Parser, timeout ?? DefaultTimeout);

    /// <summary>Adds mounts below exports that grow, or takes them away.</summary>
    public Empty ChangeMounts(ChangeMountsRequest request, TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "ChangeMounts", request, Empty.Parser, timeout ?? DefaultTimeout);

    /// <summary>Ends every container and powers the VM off; the connection just ends.</summary>
    public Empty Shutdown(TimeSpan? timeout = null) =>
        _client.Call(ServiceName, "Shutdown", new Empty(), Empty.Parser, timeout ?? DefaultTimeout);

    /// <inheritdoc/>
    public void Dispose() => _client.Dispose();
}
