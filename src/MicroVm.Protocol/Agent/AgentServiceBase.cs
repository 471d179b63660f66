using Google.Protobuf;
using MicroVm.Ttrpc;

namespace MicroVm.Protocol.Agent;

/// <summary>
/// The agent's side of the service (agent.proto): decodes each request and calls the method of that name, on the server's
/// loop. A method answers through its <see cref="TtrpcCall"/>, at once or later, or throws <see cref="TtrpcException"/>.
/// </summary>
public abstract class AgentServiceBase : ITtrpcService
{
    /// <inheritdoc/>
    public string ServiceName => AgentClient.ServiceName;

    /// <inheritdoc/>
    public bool Invoke(TtrpcCall call)
    {
        ArgumentNullException.ThrowIfNull(call);
        ByteString payload = call.Request.Payload;
        switch (call.Request.Method)
        {
            case "GetGuestDetails":
                GetGuestDetails(GetGuestDetailsRequest.Parser.ParseFrom(payload), call);
                return true;
            case "CreateContainer":
                CreateContainer(CreateContainerRequest.Parser.ParseFrom(payload), call);
                return true;
            case "StartContainer":
                StartContainer(ContainerId.Parser.ParseFrom(payload), call);
                return true;
            case "ExecProcess":
                ExecProcess(ExecProcessRequest.Parser.ParseFrom(payload), call);
                return true;
            case "SignalProcess":
                SignalProcess(SignalProcessRequest.Parser.ParseFrom(payload), call);
                return true;
            case "WaitProcess":
                WaitProcess(ProcessId.Parser.ParseFrom(payload), call);
                return true;
            case "TtyWinResize":
                TtyWinResize(TtyWinResizeRequest.Parser.ParseFrom(payload), call);
                return true;
            case "ListProcesses":
                ListProcesses(ContainerId.Parser.ParseFrom(payload), call);
                return true;
            case "StatsContainer":
                StatsContainer(ContainerId.Parser.ParseFrom(payload), call);
                return true;
            case "UpdateContainer":
                UpdateContainer(UpdateContainerRequest.Parser.ParseFrom(payload), call);
                return true;
            case "PauseContainer":
                PauseContainer(ContainerId.Parser.ParseFrom(payload), call);
                return true;
            case "ResumeContainer":
                ResumeContainer(ContainerId.Parser.ParseFrom(payload), call);
                return true;
            case "RemoveContainer":
                RemoveContainer(RemoveContainerRequest.Parser.ParseFrom(payload), call);
                return true;
            case "GetOomEvent":
                GetOomEvent(GetOomEventRequest.Parser.ParseFrom(payload), call);
                return true;
            case "SetGuestDateTime":
                SetGuestDateTime(SetGuestDateTimeRequest.Parser.ParseFrom(payload), call);
                return true;
            case "ReseedRandomDev":
                ReseedRandomDev(ReseedRandomDevRequest.Parser.ParseFrom(payload), call);
                return true;
            case "OnlineCpuMem":
                OnlineCpuMem(Empty.Parser.ParseFrom(payload), call);
                return true;
            case "ConfigureNetwork":
                ConfigureNetwork(NetworkPlan.Parser.ParseFrom(payload), call);
                return true;
            case "RelayNames":
                RelayNames(NameRelayRequest.Parser.ParseFrom(payload), call);
                return true;
            case "ChangeMounts":
                ChangeMounts(ChangeMountsRequest.Parser.ParseFrom(payload), call);
                return true;
            case "Shutdown":
                Shutdown(Empty.Parser.ParseFrom(payload), call);
                return true;
            default:
                return false;
        }
    }

    /// <summary>What the guest is: versions, memory, CPUs, controllers. Answered by <see cref="GuestDetails"/>.</summary>
    protected abstract void GetGuestDetails(GetGuestDetailsRequest request, TtrpcCall call);

    /// <summary>Sets a container up to the point where its init waits to exec: state created. Answered by <see cref="CreateContainerResponse"/>.</summary>
    protected abstract void CreateContainer(CreateContainerRequest request, TtrpcCall call);

    /// <summary>Lets the init exec; answers when the exec succeeded. Answered by <see cref="Empty"/>.</summary>
    protected abstract void StartContainer(ContainerId request, TtrpcCall call);

    /// <summary>Starts another process in a running container. Answered by <see cref="ExecProcessResponse"/>.</summary>
    protected abstract void ExecProcess(ExecProcessRequest request, TtrpcCall call);

    /// <summary>Sends a signal to a process or to every process of a container. Answered by <see cref="Empty"/>.</summary>
    protected abstract void SignalProcess(SignalProcessRequest request, TtrpcCall call);

    /// <summary>Answers when the process has ended. Answered by <see cref="WaitProcessResponse"/>.</summary>
    protected abstract void WaitProcess(ProcessId request, TtrpcCall call);

    /// <summary>Sets a terminal's size. Answered by <see cref="Empty"/>.</summary>
    protected abstract void TtyWinResize(TtyWinResizeRequest request, TtrpcCall call);

    /// <summary>The container's processes, by their ids in the guest. Answered by <see cref="ListProcessesResponse"/>.</summary>
    protected abstract void ListProcesses(ContainerId request, TtrpcCall call);

    /// <summary>The container's cgroup files and interfaces. Answered by <see cref="ContainerStats"/>.</summary>
    protected abstract void StatsContainer(ContainerId request, TtrpcCall call);

    /// <summary>Writes cgroup settings. Answered by <see cref="Empty"/>.</summary>
    protected abstract void UpdateContainer(UpdateContainerRequest request, TtrpcCall call);

    /// <summary>Freezes the container's cgroup. Answered by <see cref="Empty"/>.</summary>
    protected abstract void PauseContainer(ContainerId request, TtrpcCall call);

    /// <summary>Thaws the container's cgroup. Answered by <see cref="Empty"/>.</summary>
    protected abstract void ResumeContainer(ContainerId request, TtrpcCall call);

    /// <summary>Kills what is left of a container and forgets it. Answered by <see cref="Empty"/>.</summary>
    protected abstract void RemoveContainer(RemoveContainerRequest request, TtrpcCall call);

    /// <summary>Answers when a container has more OOM kills than the caller knows of. Answered by <see cref="OomEvent"/>.</summary>
    protected abstract void GetOomEvent(GetOomEventRequest request, TtrpcCall call);

    /// <summary>Sets the guest's clock. Answered by <see cref="Empty"/>.</summary>
    protected abstract void SetGuestDateTime(SetGuestDateTimeRequest request, TtrpcCall call);

    /// <summary>Mixes entropy into the guest's random number generator. Answered by <see cref="Empty"/>.</summary>
    protected abstract void ReseedRandomDev(ReseedRandomDevRequest request, TtrpcCall call);

    /// <summary>Brings added CPUs and memory on line. Answered by <see cref="Empty"/>.</summary>
    protected abstract void OnlineCpuMem(Empty request, TtrpcCall call);

    /// <summary>Brings the guest's interfaces, routes and neighbours to what the plan says. Answered by <see cref="Empty"/>.</summary>
    protected abstract void ConfigureNetwork(NetworkPlan request, TtrpcCall call);

    /// <summary>Answers names on loopback addresses through a stream. Answered by <see cref="Empty"/>.</summary>
    protected abstract void RelayNames(NameRelayRequest request, TtrpcCall call);

    /// <summary>Adds mounts below exports that grow, or takes them away. Answered by <see cref="Empty"/>.</summary>
    protected abstract void ChangeMounts(ChangeMountsRequest request, TtrpcCall call);

    /// <summary>Ends every container and powers the VM off; the connection just ends. Answered by <see cref="Empty"/>.</summary>
    protected abstract void Shutdown(Empty request, TtrpcCall call);
}
