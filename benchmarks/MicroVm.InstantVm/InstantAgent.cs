using Google.Protobuf;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.InstantVm;

/// <summary>
/// The agent's service for one container that does nothing and, once started, has ended; so have further processes. Every answer is
/// ready when the question comes.
/// </summary>
/// <param name="ended">Called at the end of a process.</param>
internal sealed class InstantAgent(Action ended) : AgentServiceBase
{
    private readonly List<TtrpcCall> _waiting = [];
    private bool _started;

    protected override void GetGuestDetails(GetGuestDetailsRequest request, TtrpcCall call) => call.Complete(new GuestDetails());

    protected override void CreateContainer(CreateContainerRequest request, TtrpcCall call) => call.Complete(new CreateContainerResponse { Pid = 2 });

    protected override void RelayNames(NameRelayRequest request, TtrpcCall call) => call.Complete(new Empty());

    protected override void ChangeMounts(ChangeMountsRequest request, TtrpcCall call) => Refuse(request, call);

    protected override void ConnectSocket(ConnectSocketRequest request, TtrpcCall call) => Refuse(request, call);

    protected override void ConnectPort(ConnectPortRequest request, TtrpcCall call) => Refuse(request, call);

    protected override void ConfigureNetwork(NetworkPlan request, TtrpcCall call) => call.Complete(new Empty());

    protected override void StartContainer(ContainerId request, TtrpcCall call)
    {
        _started = true;
        call.Complete(new Empty());
        ended();
        _waiting.ForEach(c => c.Complete(new WaitProcessResponse()));
        _waiting.Clear();
    }

    protected override void WaitProcess(ProcessId request, TtrpcCall call)
    {
        if (request.ExecId.Length > 0)
        {
            ended();
        }

        if (_started || request.ExecId.Length > 0)
        {
            call.Complete(new WaitProcessResponse());
        }
        else
        {
            _waiting.Add(call);
        }
    }

    protected override void ExecProcess(ExecProcessRequest request, TtrpcCall call) => call.Complete(new ExecProcessResponse { Pid = 3 });

    protected override void SignalProcess(SignalProcessRequest request, TtrpcCall call) => Refuse(request, call);

    protected override void TtyWinResize(TtyWinResizeRequest request, TtrpcCall call) => Refuse(request, call);

    protected override void TtyHangUp(ProcessId request, TtrpcCall call) => Refuse(request, call);

    protected override void ListProcesses(ContainerId request, TtrpcCall call) => Refuse(request, call);

    protected override void StatsContainer(ContainerId request, TtrpcCall call) => Refuse(request, call);

    protected override void UpdateContainer(UpdateContainerRequest request, TtrpcCall call) => Refuse(request, call);

    protected override void PauseContainer(ContainerId request, TtrpcCall call) => Refuse(request, call);

    protected override void ResumeContainer(ContainerId request, TtrpcCall call) => Refuse(request, call);

    protected override void RemoveContainer(RemoveContainerRequest request, TtrpcCall call) => Refuse(request, call);

    protected override void AwaitReadiness(ReadinessRequest request, TtrpcCall call) => Refuse(request, call);

    // Asked for by who watches; there is never anything to tell.
    protected override void GetOomEvent(GetOomEventRequest request, TtrpcCall call)
    {
    }

    protected override void SetGuestDateTime(SetGuestDateTimeRequest request, TtrpcCall call) => Refuse(request, call);

    protected override void ReseedRandomDev(ReseedRandomDevRequest request, TtrpcCall call) => Refuse(request, call);

    protected override void SetOnlineCpus(OnlineCpus request, TtrpcCall call) => Refuse(request, call);

    protected override void PrepareToSave(Empty request, TtrpcCall call) => Refuse(request, call);

    protected override void ReadTrace(TraceRequest request, TtrpcCall call) => Refuse(request, call);

    protected override void Shutdown(Empty request, TtrpcCall call) => Refuse(request, call);

    private static void Refuse(IMessage request, TtrpcCall call) => call.Fail(StatusCode.Unimplemented, $"{request.Descriptor.Name} is not part of what is measured");
}
