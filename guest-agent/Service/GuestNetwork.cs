using MicroVm.Agent.Containers;
using MicroVm.Agent.Names;
using MicroVm.Agent.Network;
using MicroVm.Linux;
using MicroVm.Linux.Netlink;
using MicroVm.Protocol.Agent;
using MicroVm.Protocol.Names;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>The VM's interfaces, and the relay of DNS queries to the host.</summary>
internal sealed class GuestNetwork(AgentState agent)
{
    private Action? _endRelay;

    /// <summary>Sets interfaces, addresses and routes up.</summary>
    internal void Configure(NetworkPlan request, TtrpcCall call)
    {
        using NetlinkSocket socket = new();
        NetworkSetup setup = new(socket, "/proc/sys");
        if (!setup.HasAll(request.Interfaces))
        {
            // Their windows had no device when the guest booted.
            NetworkDrivers.BindAll();
        }

        agent.Links.Expect(request.Links);
        setup.Apply(request);
        call.Complete(new Empty());
    }

    internal void RelayNames(NameRelayRequest request, TtrpcCall call)
    {
        if (request.Addresses.Count is 0 or > NameFrame.MaxAddresses)
        {
            throw new TtrpcException(StatusCode.InvalidArgument, $"{request.Addresses.Count} addresses to relay names for: 1 to {NameFrame.MaxAddresses}");
        }

        SafeFd stream = agent.Streams.Take(request.Stream)
            ?? throw new TtrpcException(StatusCode.InvalidArgument, $"no stream was connected from host port {request.Stream}");
        _endRelay?.Invoke();
        try
        {
            Loopback.UpOnce();
            _endRelay = new NameRelay(agent.Loop, stream, request.Addresses, agent.Cgroups.Root).Dispose;
        }
        catch (LinuxException e)
        {
            stream.Dispose();
            throw new TtrpcException(StatusCode.Internal, e.Message, e);
        }

        call.Complete(new Empty());
    }
}
