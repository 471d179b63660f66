using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Network;
using MicroVm.Sandbox.StandIn;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Shim.Containers;

/// <summary>What a container's VM consists of on the host, in the order in which it is made; null where that was not reached.</summary>
internal sealed class VmParts(string vsock)
{
    /// <summary>The VMM's vsock socket.</summary>
    internal string Vsock { get; } = vsock;

    internal OwnerThread Owner { get; } = new();

    internal VmNetwork? Network { get; set; }

    internal ContainerRecord? Record { get; set; }

    internal HostCgroup? Cgroup { get; set; }

    internal KeptConfiguration? Configuration { get; set; }

    internal Vmm? Vmm { get; set; }

    internal Guest? Guest { get; set; }

    internal HostSocketRelay? Sockets { get; set; }

    internal MountFollower? Mounts { get; set; }

    internal SocketFollower? SocketFollower { get; set; }

    internal VmProcess? Init { get; set; }

    /// <summary>Ends the VM and what serves it.</summary>
    internal void EndVm()
    {
        Mounts?.Stop();
        SocketFollower?.Stop();
        Guest?.Dispose();
        Vmm?.Dispose();
        Mounts?.Dispose();
        SocketFollower?.Dispose();
        Sockets?.Dispose();
        Network?.Dispose();
        Owner.Dispose();
    }

    /// <summary>Removes what outlives processes: cgroup and state.</summary>
    internal void Remove()
    {
        _ = Cgroup?.Remove();
        Record?.Delete();
    }
}
