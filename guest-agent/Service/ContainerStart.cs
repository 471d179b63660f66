using MicroVm.Agent.Child;
using MicroVm.Agent.Containers;
using MicroVm.Agent.Network;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Tracing;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>Starts created containers: startContainer hooks, then the exec of the init.</summary>
internal sealed class ContainerStart(AgentState agent)
{
    // Above every thread's.
    private const int FirstInitLane = 1 << 20;
    private readonly Dictionary<ContainerProcess, ExecWatch> _starting = [];
    private readonly HashSet<ContainerProcess> _inHooks = [];

    /// <summary>The lane of what an init itself does, in the trace.</summary>
    internal static int LaneOf(ContainerProcess init) => FirstInitLane + (init.Child?.Pid ?? 0);

    internal void Start(ContainerId request, TtrpcCall call)
    {
        Container container = agent.Containers.Find(request.ContainerId_);
        ContainerProcess init = container.Init!;
        switch (init.State)
        {
            case ProcessState.Created when !_inHooks.Contains(init):
                break;
            case ProcessState.Exited:
                throw Refusal.WrongState("cannot start a container that has stopped");
            case ProcessState.Creating:
                throw Refusal.WrongState("the container is being created");
            default:
                throw Refusal.WrongState("cannot start an already running container");
        }

        if (container.Spec.StartContainerHooks.Count > 0 || !agent.Links.AreUp())
        {
            RunBeforeStart(container, init, call);
        }
        else
        {
            LetExec(init, call);
        }
    }

    /// <summary>Answers the start of an init that has ended, if one waits for its exec.</summary>
    internal void OnExited(ContainerProcess process)
    {
        if (_starting.TryGetValue(process, out ExecWatch? watch))
        {
            Finish(process, watch.Call);
        }
    }

    private void RunBeforeStart(Container container, ContainerProcess init, TtrpcCall call)
    {
        _inHooks.Add(init);
        SafeFd pidfd = init.Child!.PidFd!.Duplicate();
        HashSet<string> links = agent.Links.Take();
        Background.Run("hooks", () =>
        {
            if (links.Count > 0 && Background.Attempt(() => ExpectedLinks.Await(links)) is { } unknown)
            {
                agent.Loop.Post(() => Boot.Log.Warn(unknown.Message));
            }

            Exception? failure = container.Spec.StartContainerHooks.Count == 0 ? null : Background.Attempt(new ContainerHooks(agent.Setup, container, pidfd).RunStartContainer);
            pidfd.Dispose();
            agent.Loop.Post(() =>
            {
                _inHooks.Remove(init);
                if (init.State == ProcessState.Exited)
                {
                    // Killed meanwhile: an exit like any other.
                    call.Complete(new Empty());
                }
                else if (failure is not null)
                {
                    ContainerRemoval.Kill(container);
                    call.Fail(StatusCode.Internal, $"unable to start container process: {failure.Message}");
                }
                else
                {
                    LetExec(init, call);
                }
            });
        });
    }

    private void LetExec(ContainerProcess init, TtrpcCall call)
    {
        init.StepBegan = StepRecorder.Now;
        init.State = ProcessState.Starting;
        ExecWatch watch = new(this, init, call);
        _starting.Add(init, watch);
        agent.Loop.Add(init.Child!.Report, Libc.EPOLLIN, watch);
        init.Child.Go();
    }

    private void Finish(ContainerProcess init, TtrpcCall call)
    {
        // The pipe ends when exec closes the child's end, and when the child is killed: which is an exit like any other.
        string? failure = init.NoteExec(init.Child!.TakeReport());
        agent.Loop.Remove(init.Child.Report);
        long now = StepRecorder.Now;
        agent.Setup.Trace.Add("exec the init", init.StepBegan, now, LaneOf(init));
        init.StepBegan = now;
        _starting.Remove(init);
        init.State = ProcessState.Running;
        if (failure is null)
        {
            call.Complete(new Empty());
        }
        else
        {
            call.Fail(StatusCode.Internal, $"unable to start container process: {failure}");
        }
    }

    private sealed class ExecWatch(ContainerStart start, ContainerProcess init, TtrpcCall call) : IEventHandler
    {
        internal TtrpcCall Call => call;

        public void OnReady(SafeFd fd, uint events) => start.Finish(init, call);
    }
}
