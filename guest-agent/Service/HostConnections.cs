using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>The host's connections to sockets that containers made in shared folders, and to ports of the guest's localhost.</summary>
internal sealed class HostConnections(AgentState agent)
{
    private readonly ContainerSockets _sockets = new(agent.Loop, agent.Setup.FileSystems);
    private readonly LocalPorts _ports = new(agent.Loop);

    internal void Connect(ConnectSocketRequest request, TtrpcCall call)
    {
        SafeFd stream = Take(request.Stream);
        Errno errno;
        try
        {
            errno = _sockets.Connect(stream, request.FsTag, request.Node, request.Uid, request.Gid);
        }
        catch (SetupException e)
        {
            stream.Dispose();
            throw new TtrpcException(StatusCode.InvalidArgument, e.Message, e);
        }

        switch (errno)
        {
            case Errno.OK:
                call.Complete(new Empty());
                break;
            case Errno.ECONNREFUSED or Errno.EAGAIN:
                throw new TtrpcException(StatusCode.FailedPrecondition, "nobody takes the connection now");
            default:
                throw new TtrpcException(StatusCode.NotFound, $"the socket cannot be connected to: {LinuxException.Text(errno)}");
        }
    }

    internal void Connect(ConnectPortRequest request, TtrpcCall call)
    {
        if (request.Port is 0 or > ushort.MaxValue)
        {
            throw new TtrpcException(StatusCode.InvalidArgument, $"{request.Port} is no port");
        }

        if (_ports.Connect(Take(request.Stream), (ushort)request.Port, request.Six) is not Errno.OK and var errno)
        {
            throw new TtrpcException(StatusCode.FailedPrecondition, $"port {request.Port} takes no connection: {LinuxException.Text(errno)}");
        }

        call.Complete(new Empty());
    }

    private SafeFd Take(uint stream) =>
        agent.Streams.Take(stream) ?? throw new TtrpcException(StatusCode.InvalidArgument, $"no stream was connected from host port {stream}");
}
