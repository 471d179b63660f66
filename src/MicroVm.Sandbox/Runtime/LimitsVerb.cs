using MicroVm.Linux;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Runtime;

/// <summary>Limits, figures, and what comes of them: pause, resume, update, events.</summary>
internal sealed class LimitsVerb(RuntimeContext runtime)
{
    /// <summary>Freezes a running container's processes.</summary>
    internal void Pause(string id)
    {
        if (runtime.Find(id).Status is not (ContainerStatus.Running or ContainerStatus.Created))
        {
            throw new SandboxException(RuntimeTexts.NotRunning);
        }

        runtime.Ask(id, new ControlCall { Verb = ControlVerb.Pause });
    }

    /// <summary>Thaws a paused container.</summary>
    internal void Resume(string id)
    {
        if (runtime.Find(id).Status != ContainerStatus.Paused)
        {
            throw new SandboxException("container not paused");
        }

        runtime.Ask(id, new ControlCall { Verb = ControlVerb.Resume });
    }

    /// <summary>Changes limits of a container, in the guest and on the host. The VM keeps its size.</summary>
    internal void Update(string id, Resources change)
    {
        if (runtime.Find(id).Status == ContainerStatus.Stopped)
        {
            throw new SandboxException(RuntimeTexts.NotRunning);
        }

        ControlReply reply = runtime.Ask(id, new ControlCall { Verb = ControlVerb.Update, Change = change });
        reply.Warnings?.ForEach(w => runtime.Log.Write(LogLevel.Warning, w));
    }

    /// <summary>A container's figures, as the guest's kernel has them.</summary>
    internal ContainerFigures Figures(string id)
    {
        if (runtime.Find(id).Status == ContainerStatus.Stopped)
        {
            throw new SandboxException($"container with id {id} is not running");
        }

        ControlReply reply = runtime.Ask(id, new ControlCall { Verb = ControlVerb.Stats });
        return new ContainerFigures(reply.Files ?? [], reply.Interfaces ?? []);
    }

    /// <summary>Watches for a container's processes that are killed for want of memory, from now on.</summary>
    /// <exception cref="SandboxException">The container has ended, or its process does not answer.</exception>
    internal OutOfMemoryWatch WatchOutOfMemory(string id)
    {
        try
        {
            return new OutOfMemoryWatch(runtime.Store.FolderOf(id));
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"container with id {id} is not running", e);
        }
    }
}
