using MicroVm.Agent.Containers;
using MicroVm.Agent.Names;
using MicroVm.Linux;
using MicroVm.Protocol.Agent;
using MicroVm.Protocol.Names;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

public sealed partial class AgentService
{
    private Action? _endNames;

    /// <inheritdoc/>
    protected override void RelayNames(NameRelayRequest request, TtrpcCall call)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(call);
        if (request.Addresses.Count is 0 or > NameFrame.MaxAddresses)
        {
            throw new TtrpcException(StatusCode.InvalidArgument, $"{request.Addresses.Count} addresses to relay names for: 1 to {NameFrame.MaxAddresses}");
        }

        SafeFd stream = _streams.Take(request.Stream)
            ?? throw new TtrpcException(StatusCode.InvalidArgument, $"no stream was connected from host port {request.Stream}");
        _endNames?.Invoke();
        try
        {
            Loopback.UpOnce();
            _endNames = new NameRelay(_loop, stream, request.Addresses, _cgroups.Root).Dispose;
        }
        catch (LinuxException e)
        {
            stream.Dispose();
            throw new TtrpcException(StatusCode.Internal, e.Message, e);
        }

        call.Complete(new Empty());
    }
}
