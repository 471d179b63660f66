using System.Buffers.Binary;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Netlink;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Vm;
using MicroVm.Ttrpc;

namespace MicroVm.Sandbox.Network;

/// <summary>
/// Carries connections that are made to localhost in the container's network namespace on the host to the guest's localhost, as
/// port-forward of Kubernetes needs, on a thread of its own in the namespace. A process of the host that listens there itself is found first.
/// </summary>
internal sealed unsafe class LoopbackRelay : IEventHandler, IDisposable
{
    private const int MaxConnections = 256;

    // A listener whose backlog is full does not answer.
    private const int OwnMilliseconds = 1000;
    private const uint Localhost = 0x0100007f;
    private readonly NamespaceLoop _thread = new();
    private readonly SocketBridges _bridges;
    private readonly LoopbackSockets _sockets;
    private readonly string _vsockPath;
    private readonly AgentClient _agent;

    /// <summary>Starts to carry.</summary>
    /// <param name="network">The container's network namespace.</param>
    /// <param name="sockets">Get the connections; owned by the relay from now on.</param>
    /// <param name="vsockPath">The VM's vsock socket.</param>
    /// <param name="agent">Connects to the guest's ports.</param>
    /// <exception cref="LinuxException">No descriptor is free.</exception>
    internal LoopbackRelay(NetworkNamespace network, LoopbackSockets sockets, string vsockPath, AgentClient agent)
    {
        (_sockets, _vsockPath, _agent) = (sockets, vsockPath, agent);
        _bridges = new SocketBridges(_thread.Loop, MaxConnections);
        foreach (SafeFd listener in sockets.Listeners)
        {
            _thread.Loop.Add(listener, Libc.EPOLLIN, this);
        }

        _thread.Start(network, "loopback", () =>
        {
            _bridges.CloseAll();
            _sockets.Dispose();
        });
    }

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        while (LoopbackSockets.TryAccept(fd, out ushort port, out bool six) is { } client)
        {
            NoDelay(client);
            SafeFd? other = _bridges.IsFull ? null : (six ? null : ConnectOwn(port)) ?? ConnectGuest(port, six);
            if (other is null)
            {
                Refuse(client);
                continue;
            }

            _ = _bridges.Join(client, other);
        }
    }

    /// <summary>Carries no more; the thread is not waited for, since a call to the guest may be under way.</summary>
    public void Dispose() => _thread.Dispose();

    // A socket of the namespace itself; on the loopback interface the answer comes at once.
    private static SafeFd? ConnectOwn(ushort port)
    {
        SafeFd socket = new(Libc.socket(Libc.AF_INET, Libc.SOCK_STREAM | Libc.SOCK_CLOEXEC | Libc.SOCK_NONBLOCK, 0));
        Libc.sockaddr_in from = new() { sin_family = Libc.AF_INET, sin_addr = LoopbackSockets.OwnSource };
        Libc.sockaddr_in to = new() { sin_family = Libc.AF_INET, sin_addr = Localhost, sin_port = BinaryPrimitives.ReverseEndianness(port) };
        const uint size = 16;
        if (!socket.IsInvalid && Libc.bind(socket.Value, &from, size) == 0
            && (Libc.connect(socket.Value, &to, size) == 0 || (Check.LastErrno == Errno.EINPROGRESS && IsConnected(socket))))
        {
            NoDelay(socket);
            return socket;
        }

        socket.Dispose();
        return null;
    }

    private static bool IsConnected(SafeFd socket)
    {
        Libc.pollfd pfd = new() { fd = socket.Value, events = Libc.POLLOUT };
        int error = 0;
        uint size = sizeof(int);
        return Libc.poll(&pfd, 1, OwnMilliseconds) > 0
            && Libc.getsockopt(socket.Value, Libc.SOL_SOCKET, Libc.SO_ERROR, &error, &size) == 0 && error == 0;
    }

    private SafeFd? ConnectGuest(ushort port, bool six)
    {
        try
        {
            return GuestStream.Open(_vsockPath, number => _agent.ConnectPort(new ConnectPortRequest { Stream = number, Port = port, Six = six }));
        }
        catch (Exception e) when (e is LinuxException or TtrpcException)
        {
            return null;
        }
    }

    // The peer sees a reset: the kernel has taken its connection before the guest could be asked.
    private static void Refuse(SafeFd client)
    {
        Libc.linger now = new() { l_onoff = 1, l_linger = 0 };
        _ = Libc.setsockopt(client.Value, Libc.SOL_SOCKET, Libc.SO_LINGER, &now, (uint)sizeof(Libc.linger));
        client.Dispose();
    }

    private static void NoDelay(SafeFd socket)
    {
        int yes = 1;
        _ = Libc.setsockopt(socket.Value, Libc.IPPROTO_TCP, Libc.TCP_NODELAY, &yes, sizeof(int));
    }
}
