using MicroVm.Linux;
using MicroVm.Protocol.Names;

namespace MicroVm.Agent.Names;

/// <summary>
/// Answers names on loopback addresses of the guest by what answers them in the container's network namespace on the host, where an
/// engine's resolver listens (Docker's at 127.0.0.11). Everything is bounded: the oldest of too many questions or connections is
/// dropped, and whoever asked asks again.
/// </summary>
public sealed class NameRelay : INameChannelOwner, IDisposable
{
    private const int MaxWaiting = 256, MaxConnections = 64;
    private readonly NameChannel _channel;
    private readonly List<NameEndpoint> _endpoints = [];
    private readonly Query[] _waiting = new Query[MaxWaiting];
    private readonly List<NameConnection> _connections = [];
    private readonly NameRedirect _redirect;
    private uint _nextId;

    /// <summary>Starts to listen and to relay.</summary>
    /// <param name="loop">The agent's loop, on whose thread this is called.</param>
    /// <param name="stream">To the host; taken over once the relay is there.</param>
    /// <param name="addresses">IPv4 addresses in network byte order.</param>
    /// <param name="cgroup">Root of the cgroup hierarchy.</param>
    /// <exception cref="LinuxException">An address cannot be listened on.</exception>
    public NameRelay(EventLoop loop, SafeFd stream, IReadOnlyList<uint> addresses, string cgroup)
    {
        ArgumentNullException.ThrowIfNull(addresses);
        _redirect = new NameRedirect(cgroup);
        try
        {
            for (int i = 0; i < addresses.Count; i++)
            {
                _endpoints.Add(new NameEndpoint(this, loop, (byte)i, addresses[i], _redirect));
            }

            _channel = new NameChannel(loop, stream, this);
        }
        catch
        {
            _endpoints.ForEach(e => e.Dispose());
            _redirect.Dispose();
            throw;
        }
    }

    /// <summary>Passes a question on.</summary>
    /// <param name="endpoint">Where it came in.</param>
    /// <param name="transport">How.</param>
    /// <param name="client">Of a datagram: its source, address and port in network byte order.</param>
    /// <param name="connection">Of a stream.</param>
    /// <param name="message">The question.</param>
    /// <returns>False when the host does not keep up.</returns>
    internal bool TryAsk(NameEndpoint endpoint, NameTransport transport, (uint Address, ushort Port) client, NameConnection? connection, ReadOnlySpan<byte> message)
    {
        uint id = _nextId++;
        if (!_channel.TrySend(new NameFrame(id, endpoint.Index, transport, (ushort)message.Length), message))
        {
            return false;
        }

        _waiting[id % MaxWaiting] = new Query(true, id, endpoint, client, connection);
        return true;
    }

    /// <summary>Adds a connection; the one that is there for longest makes room.</summary>
    internal void Add(NameConnection connection)
    {
        if (_connections.Count == MaxConnections)
        {
            _connections[0].Dispose();
        }

        _connections.Add(connection);
    }

    /// <summary>Forgets a connection that is closed.</summary>
    internal void Remove(NameConnection connection) => _connections.Remove(connection);

    /// <inheritdoc/>
    public void OnMessage(NameFrame frame, ReadOnlySpan<byte> message)
    {
        ref Query query = ref _waiting[frame.Id % MaxWaiting];
        if (!query.Waits || query.Id != frame.Id)
        {
            return;
        }

        Query answered = query;
        query = default;
        if (answered.Connection is not null)
        {
            answered.Connection.Answer(message);
        }
        else if (!message.IsEmpty)
        {
            answered.Endpoint.Answer(answered.Client, message);
        }
    }

    /// <inheritdoc/>
    public void OnClosed() => Dispose();

    /// <inheritdoc/>
    public void Dispose()
    {
        _channel.Dispose();
        _endpoints.ForEach(e => e.Dispose());
        _redirect.Dispose();
        foreach (NameConnection connection in _connections.ToArray())
        {
            connection.Dispose();
        }
    }

    private readonly record struct Query(bool Waits, uint Id, NameEndpoint Endpoint, (uint Address, ushort Port) Client, NameConnection? Connection);
}
