using MicroVm.Agent.Network;
using MicroVm.Linux.Netlink;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

public sealed unsafe partial class AgentService
{
    /// <inheritdoc/>
    protected override void ConfigureNetwork(NetworkPlan request, TtrpcCall call)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(call);
        using NetlinkSocket socket = new();
        NetworkSetup setup = new(socket, "/proc/sys");
        if (!setup.HasAll(request.Interfaces))
        {
            // Their windows had no device when the guest booted.
            NetworkDrivers.BindAll();
        }

        setup.Apply(request);
        call.Complete(new Empty());
    }
}
