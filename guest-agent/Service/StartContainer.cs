using MicroVm.Agent.Child;
using MicroVm.Agent.Containers;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

public sealed partial class AgentService
{
    private readonly Dictionary<ContainerProcess, StartWatch> _starting = [];
    private readonly HashSet<ContainerProcess> _inHooks = [];

    /// <inheritdoc/>
    protected override void StartContainer(ContainerId request, TtrpcCall call)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(call);
        Container container = Find(request.ContainerId_);
        ContainerProcess init = container.Init!;
        switch (init.State)
        {
            case ProcessState.Created when !_inHooks.Contains(init):
                break;
            case ProcessState.Exited:
                throw WrongState("cannot start a container that has stopped");
            case ProcessState.Creating:
                throw WrongState("the container is being created");
            default:
                throw WrongState("cannot start an already running container");
        }

        if (container.Spec.StartContainerHooks.Count > 0)
        {
            RunStartHooks(container, init, call);
        }
        else
        {
            LetExec(init, call);
        }
    }

    private void RunStartHooks(Container container, ContainerProcess init, TtrpcCall call)
    {
        _inHooks.Add(init);
        SafeFd pidfd = init.Child!.PidFd!.Duplicate();
        RunThread("hooks", () =>
        {
            Exception? failure = Attempt(new HookRunner(_context, container, pidfd).RunStartContainer);
            pidfd.Dispose();
            _loop.Post(() =>
            {
                _inHooks.Remove(init);
                if (init.State == ProcessState.Exited)
                {
                    // Killed meanwhile: an exit like any other.
                    call.Complete(new Empty());
                }
                else if (failure is not null)
                {
                    Kill(container);
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
        init.State = ProcessState.Starting;
        StartWatch watch = new(this, init, call);
        _starting.Add(init, watch);
        _loop.Add(init.Child!.Report, Libc.EPOLLIN, watch);
        init.Child.Go();
    }

    private void FinishStart(ContainerProcess init, TtrpcCall call)
    {
        // The pipe ends when exec closes the child's end, and when the child is killed: which is an exit like any other.
        ChildReport? failure = init.Child!.TakeReport();
        _loop.Remove(init.Child.Report);
        _starting.Remove(init);
        init.State = ProcessState.Running;
        if (failure is null)
        {
            call.Complete(new Empty());
        }
        else
        {
            call.Fail(
                StatusCode.Internal,
                $"unable to start container process: {failure.Value.Describe(init.Executable, init.Spec.Cwd)}");
        }
    }

    private void AbortStart(ContainerProcess process)
    {
        if (_starting.TryGetValue(process, out StartWatch? watch))
        {
            FinishStart(process, watch.Call);
        }
    }

    private sealed class StartWatch(AgentService service, ContainerProcess init, TtrpcCall call) : IEventHandler
    {
        internal TtrpcCall Call => call;

        public void OnReady(SafeFd fd, uint events) => service.FinishStart(init, call);
    }
}
