using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>The host's connections to sockets that containers made in shared folders.</summary>
internal sealed class HostConnections(AgentState agent)
{
    private readonly ContainerSockets _sockets = new(agent.Loop, agent.Setup.FileSystems);

    internal void Connect(ConnectSocketRequest request, TtrpcCall call)
    {
        SafeFd stream = agent.Streams.Take(request.Stream)
            ?? throw new TtrpcException(StatusCode.InvalidArgument, $"no stream was connected from host port {request.Stream}");
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
}
