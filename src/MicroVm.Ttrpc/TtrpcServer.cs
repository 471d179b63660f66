using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Ttrpc;

/// <summary>Takes a waiting connection from a listener, non-blocking; null when there is none.</summary>
public delegate SafeFd? Acceptor(SafeFd listener);

/// <summary>
/// A ttrpc server on an <see cref="EventLoop"/>: any number of connections, each with any number of concurrent calls, all
/// on the loop's thread. Owns its connections; the listener stays the caller's.
/// </summary>
public sealed class TtrpcServer : IEventHandler, IDisposable
{
    private const int MaxConnections = 1024;
    private readonly Dictionary<string, ITtrpcService> _services = [];
    private readonly HashSet<ServerConnection> _connections = [];
    private readonly EventLoop _loop;
    private Acceptor? _accept;

    /// <summary>Creates a server that offers <paramref name="services"/>.</summary>
    public TtrpcServer(EventLoop loop, params ReadOnlySpan<ITtrpcService> services)
    {
        _loop = loop;
        foreach (ITtrpcService service in services)
        {
            _services.Add(service.ServiceName, service);
        }
    }

    /// <summary>Number of open connections.</summary>
    public int ConnectionCount => _connections.Count;

    /// <summary>Serves what connects to <paramref name="listener"/> (non-blocking).</summary>
    public void Listen(SafeFd listener, Acceptor accept)
    {
        _accept = accept;
        _loop.Add(listener, Libc.EPOLLIN, this);
    }

    /// <summary>Serves a connected, non-blocking stream, which it takes over.</summary>
    public void Serve(SafeFd connection)
    {
        ServerConnection c = new(this, _loop, connection);
        _connections.Add(c);
        c.Start();
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (ServerConnection connection in _connections.ToArray())
        {
            connection.Close();
        }
    }

    void IEventHandler.OnReady(SafeFd fd, uint events)
    {
        // One per readiness: the loop is level-triggered and comes back, and most wake-ups are for one client.
        SafeFd? connection = _accept!(fd);
        if (connection is null)
        {
            return;
        }

        if (_connections.Count >= MaxConnections)
        {
            connection.Dispose();
            return;
        }

        Serve(connection);
    }

    internal void Remove(ServerConnection connection) => _connections.Remove(connection);

    internal ITtrpcService? Find(string service) => _services.GetValueOrDefault(service);
}
