using MicroVm.Linux.Tracing;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Runtime;

/// <summary>Lets created containers run.</summary>
internal sealed class StartVerb(RuntimeContext runtime, ContainerTermination termination)
{
    /// <summary>Lets a created container's process run; then the poststart hooks, of which one that fails ends the container.</summary>
    internal void Start(string id)
    {
        (ContainerState state, ContainerStatus status) = runtime.Find(id);
        switch (status)
        {
            case ContainerStatus.Created:
                break;
            case ContainerStatus.Stopped:
                throw new SandboxException("cannot start a container that has stopped");
            case ContainerStatus.Running:
                throw new SandboxException("cannot start an already running container");
            default:
                throw new SandboxException($"cannot start a container in the {RuntimeTexts.Name(status)} state");
        }

        using ReadinessRelay? readiness = ReadinessRelay.Open(runtime.Log);
        StartCreated(state);
        readiness?.PassOn(runtime.Store.VsockOf(state), state.Id, state.Init.Pid);
    }

    /// <summary>The same for a container whose state is known.</summary>
    internal void StartCreated(ContainerState state)
    {
        using StepScope step = runtime.Trace.Steps.Begin("start the container");
        runtime.Ask(state.Id, new ControlCall { Verb = ControlVerb.Start });
        try
        {
            HookRunner.Run("poststart", state.Hooks?.Poststart, state.ToOci(ContainerStatus.Running));
        }
        catch (SandboxException)
        {
            runtime.WarnOnly(() => termination.End(state));
            throw;
        }
    }
}
