using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Boot;

/// <summary>Tells the host that the agent serves: one connection to its port, closed at once. Nobody listening is no error.</summary>
public sealed class ReadyNotice : IEventHandler
{
    private readonly EventLoop _loop;

    private ReadyNotice(EventLoop loop) => _loop = loop;

    /// <summary>Starts to connect; the loop does the rest.</summary>
    /// <exception cref="LinuxException">There is no vsock device.</exception>
    public static void Send(EventLoop loop)
    {
        ArgumentNullException.ThrowIfNull(loop);
        SafeFd connection = VsockSocket.StartConnect(Libc.VMADDR_CID_HOST, AgentClient.ReadyPort);
        loop.Add(connection, Libc.EPOLLOUT, new ReadyNotice(loop));
    }

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        ArgumentNullException.ThrowIfNull(fd);
        _loop.Remove(fd);
        fd.Dispose();
    }
}
