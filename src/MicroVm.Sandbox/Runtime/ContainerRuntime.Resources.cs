using MicroVm.Linux;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.StandIn;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Runtime;

public sealed partial class ContainerRuntime
{
    /// <summary>Changes limits of a container, in the guest and on the host. The VM keeps its size.</summary>
    public void Update(string id, Resources change)
    {
        ArgumentNullException.ThrowIfNull(change);
        if (State(id).Status == ContainerStatus.Stopped)
        {
            throw new SandboxException(RuntimeTexts.NotRunning);
        }

        ControlReply reply = Ask(id, new ControlCall { Verb = ControlVerb.Update, Change = change });
        reply.Warnings?.ForEach(w => _log.Write(LogLevel.Warning, w));
    }

    /// <summary>A container's figures, as the guest's kernel has them.</summary>
    public ContainerFigures Figures(string id)
    {
        if (State(id).Status == ContainerStatus.Stopped)
        {
            throw new SandboxException($"container with id {id} is not running");
        }

        ControlReply reply = Ask(id, new ControlCall { Verb = ControlVerb.Stats });
        return new ContainerFigures(reply.Files ?? [], reply.Interfaces ?? []);
    }

    /// <summary>Watches for a container's processes that are killed for want of memory, from now on.</summary>
    /// <exception cref="SandboxException">The container has ended, or its process does not answer.</exception>
    public OutOfMemoryWatch WatchOutOfMemory(string id)
    {
        try
        {
            return new OutOfMemoryWatch(_store.FolderOf(id));
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"container with id {id} is not running", e);
        }
    }
}
