using MicroVm.Agent.Cgroups;
using MicroVm.Agent.Containers;
using MicroVm.Agent.Network;
using MicroVm.Agent.Stdio;
using MicroVm.Linux;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Service;

/// <summary>What the groups of the service's calls share. Used on the loop's thread; nothing of it is disposed here.</summary>
/// <param name="loop">The agent's loop.</param>
/// <param name="setup">What setting up containers needs.</param>
/// <param name="cgroups">The cgroup hierarchy.</param>
/// <param name="streams">The host's stdio connections.</param>
internal sealed class AgentState(EventLoop loop, SetupContext setup, CgroupTree cgroups, StreamTable streams)
{
    /// <summary>The agent's loop.</summary>
    internal EventLoop Loop => loop;

    /// <summary>What setting up containers needs.</summary>
    internal SetupContext Setup => setup;

    /// <summary>The cgroup hierarchy.</summary>
    internal CgroupTree Cgroups => cgroups;

    /// <summary>The host's stdio connections.</summary>
    internal StreamTable Streams => streams;

    /// <summary>The containers that exist.</summary>
    internal ContainerTable Containers { get; } = new();

    /// <summary>Sockets of the guest that stand for the host's.</summary>
    internal GuestSockets Sockets { get; } = new(loop, setup.FileSystems);

    /// <summary>Sockets of readiness notices.</summary>
    internal ReadinessSockets Readiness { get; } = new(loop, setup.FileSystems);

    /// <summary>Interfaces that are about to be up.</summary>
    internal ExpectedLinks Links { get; } = new();

    /// <summary>Drops what a container's mounts needed outside of it.</summary>
    internal void DropSources(Container container)
    {
        foreach (Mount mount in container.Sources)
        {
            if (mount.Grows)
            {
                Sockets.DropShown(mount.FsTag, mount.Source);
                setup.FileSystems.DropGrowing(mount.FsTag, mount.Source);
            }

            if (mount.Kind == Mount.Types.Kind.Shared)
            {
                setup.FileSystems.DropShared(mount.Source);
            }

            if (mount.Socket is not null)
            {
                Sockets.Drop(mount.Socket.Port);
            }
        }

        Readiness.Drop(container.Id);
    }
}
