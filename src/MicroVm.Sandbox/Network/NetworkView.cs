using MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Network;

/// <summary>The container's network namespace as it was at some time.</summary>
/// <param name="Links">The interfaces that are joined to the VM.</param>
/// <param name="Plan">What the guest's network is to be; its interfaces are in the order of <paramref name="Links"/>.</param>
internal sealed record NetworkView(IReadOnlyList<HostLink> Links, NetworkPlan Plan)
{
    /// <summary>A namespace with nothing in it.</summary>
    internal static NetworkView Empty { get; } = new([], new NetworkPlan());

    /// <summary>There are interfaces that could be joined, and are not.</summary>
    internal bool HasMore { get; init; }

    /// <summary>The plan's interface for the link with an index; null when there is none.</summary>
    internal NetworkInterface? Find(int index)
    {
        for (int i = 0; i < Links.Count; i++)
        {
            if (Links[i].Index == index)
            {
                return Plan.Interfaces[i];
            }
        }

        return null;
    }
}
