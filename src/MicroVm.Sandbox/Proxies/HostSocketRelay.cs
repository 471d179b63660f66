using System.Globalization;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.Proxies;

/// <summary>
/// Carries the guest's connections to sockets of the host: listens on the ports of the VM's vsock device that stand for them, on a
/// thread of its own. The guest reaches these sockets and no other: a port leads to the one file that the bundle named. Any process of
/// the guest may connect to a port, whatever rights the socket's file asks for and in whichever container it is; only the agent, whose
/// sockets have those rights, knows the token that a connection begins with.
/// </summary>
internal sealed unsafe class HostSocketRelay : IEventHandler, IDisposable
{
    // What a guest can make this process hold: more connections at once are closed as they come.
    private const int MaxConnections = 256;

    // Connections whose token has not come yet; the agent's is there with the first data.
    private const int MaxStrangers = 32;
    internal const int TokenBytes = 16;
    private readonly EventLoop _loop = new();
    private readonly Dictionary<int, (SafeFd Listener, HostSocket Socket)> _listeners = [];
    private readonly SocketBridges _bridges;
    private readonly List<SocketStranger> _strangers = [];
    private readonly byte[] _token = RandomBytes.Get(TokenBytes);
    private readonly string _vsockPath;
    private readonly Thread _thread;

    private HostSocketRelay(string vsockPath)
    {
        _vsockPath = vsockPath;
        _bridges = new SocketBridges(_loop, MaxConnections);
        _thread = new Thread(_loop.Run, 256 << 10) { IsBackground = true, Name = "host sockets" };
    }

    /// <summary>Starts to listen; null when there are no sockets and will be none.</summary>
    /// <param name="vsockPath">The VM's vsock socket.</param>
    /// <param name="sockets">The sockets; their descriptors are duplicated.</param>
    /// <param name="more">Others may be added.</param>
    /// <exception cref="SandboxException">A port cannot be listened on.</exception>
    internal static HostSocketRelay? Start(string vsockPath, IReadOnlyList<HostSocket> sockets, bool more)
    {
        if (sockets.Count == 0 && !more)
        {
            return null;
        }

        HostSocketRelay relay = new(vsockPath);
        try
        {
            foreach (HostSocket socket in sockets)
            {
                relay.Listen(socket);
            }
        }
        catch (LinuxException e)
        {
            relay.CloseAll();
            relay._loop.Dispose();
            throw new SandboxException(e.Message, e);
        }

        relay._thread.Start();
        return relay;
    }

    /// <summary>Whether a connection to this socket would be taken; its daemon sees nothing of the question.</summary>
    internal static bool Listens(SafeFd socket) => UnixSocket.Listens(PathTo(socket));

    /// <summary>Listens for one more; its descriptor is duplicated.</summary>
    /// <exception cref="LinuxException">The port cannot be listened on.</exception>
    internal void Add(HostSocket socket) => _loop.Invoke(() => Listen(socket));

    /// <summary>Takes no more connections for a port; those that there are go on.</summary>
    internal void Remove(uint port) => _loop.Invoke(() =>
    {
        foreach ((int number, (SafeFd listener, HostSocket socket)) in _listeners.Where(l => l.Value.Socket.Port == port).ToArray())
        {
            _listeners.Remove(number);
            _loop.Remove(listener);
            listener.Dispose();
            socket.Dispose();
            Unlink(port);
        }
    });

    /// <inheritdoc/>
    public void OnReady(SafeFd fd, uint events)
    {
        SafeFd? guest;
        while ((guest = UnixSocket.TryAccept(fd, out _)) is not null)
        {
            if (_strangers.Count == MaxStrangers)
            {
                _strangers[0].Dispose();
            }

            uint port = _listeners[fd.Value].Socket.Port;
            SocketStranger stranger = new(_loop, guest, _token, known => Bridge(port, known), s => _strangers.Remove(s));
            _strangers.Add(stranger);
            stranger.Begin();
        }
    }

    /// <summary>Gives the agent what its connections to the sockets among a container's mounts begin with.</summary>
    internal void Introduce(IEnumerable<Protocol.Agent.Mount> mounts)
    {
        foreach (Protocol.Agent.Mount mount in mounts.Where(m => m.Socket is { Readiness: false }))
        {
            Introduce(mount.Socket);
        }
    }

    /// <summary>Gives the agent what its connections to the sockets begin with.</summary>
    internal void Introduce(Protocol.Agent.HostSocket socket) => socket.Token = Google.Protobuf.ByteString.CopyFrom(_token);

    public void Dispose()
    {
        _loop.Stop();
        _thread.Join();
        CloseAll();
        _loop.Dispose();
    }

    // The link leads to the socket that was mounted, whatever has its name now.
    private static SafeFd? Connect(SafeFd socket) => UnixSocket.TryConnect(PathTo(socket), out _);

    private static byte[] PathTo(SafeFd socket) =>
        System.Text.Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{socket.Value}"));

    private void Bridge(uint port, SafeFd guest)
    {
        SafeFd? host = !_bridges.IsFull && _listeners.Values.FirstOrDefault(l => l.Socket.Port == port).Socket is { } socket ? Connect(socket.File) : null;
        if (host is null)
        {
            // The guest's program sees its connection end at once, as from a daemon that is not there.
            guest.Dispose();
            return;
        }

        _ = _bridges.Join(host, guest);
    }

    private string PathOf(uint port) => string.Create(CultureInfo.InvariantCulture, $"{_vsockPath}_{port}");

    // Its folder may be gone with the VM.
    private void Unlink(uint port)
    {
        fixed (byte* p = System.Text.Encoding.UTF8.GetBytes(PathOf(port) + '\0'))
        {
            _ = Libc.unlinkat(Libc.AT_FDCWD, p, 0);
        }
    }

    private void Listen(HostSocket socket)
    {
        SafeFd listener = UnixSocket.Listen(PathOf(socket.Port));
        File.SetUnixFileMode(PathOf(socket.Port), GuestReady.SocketOfVmm);
        _listeners.Add(listener.Value, (listener, socket with { File = socket.File.Duplicate() }));
        _loop.Add(listener, Libc.EPOLLIN, this);
    }

    private void CloseAll()
    {
        foreach (SocketStranger stranger in _strangers.ToArray())
        {
            stranger.Dispose();
        }

        _bridges.CloseAll();

        foreach ((SafeFd listener, HostSocket socket) in _listeners.Values)
        {
            listener.Dispose();
            socket.Dispose();
            Unlink(socket.Port);
        }
    }
}
