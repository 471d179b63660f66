using MicroVm.Linux.Native;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Runtime;

/// <summary>Sends signals.</summary>
internal sealed class KillVerb(RuntimeContext runtime, ContainerTermination termination)
{
    /// <summary>Sends a signal to the container's init, or to all of its processes.</summary>
    internal void Kill(string id, string signal, bool all)
    {
        (ContainerState state, ContainerStatus status) = runtime.Find(id);
        int number = SignalNames.Parse(signal);
        if (status == ContainerStatus.Stopped)
        {
            if (all)
            {
                return;
            }

            throw new SandboxException(RuntimeTexts.NotRunning);
        }

        try
        {
            runtime.Ask(id, new ControlCall { Verb = ControlVerb.Signal, Signal = number, All = all });
        }
        catch (SandboxException) when (number == Libc.SIGKILL && state.LiveStatus() != ContainerStatus.Stopped)
        {
            // The container's process on the host does not answer: it is ended with its VM.
            termination.End(state);
        }
    }
}
