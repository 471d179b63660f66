using MicroVm.Ttrpc;

namespace MicroVm.Protocol.Agent;

/// <summary>
/// The host's side of the agent's service: one blocking method for each rpc, generated from agent.proto. Any number of threads may
/// call at once. Every method throws <see cref="TtrpcException"/>: the agent's status, Unavailable when the connection ended,
/// DeadlineExceeded after the timeout (<see cref="DefaultTimeout"/> where none is given; none for the calls that wait for
/// something to happen: "No deadline." in agent.proto). Owns the connection.
/// </summary>
public sealed partial class AgentClient : IDisposable
{
    /// <summary>vsock port of the service in the guest.</summary>
    public const uint ServicePort = 1024;

    /// <summary>vsock port of stdio streams in the guest.</summary>
    public const uint StreamPort = 1025;

    /// <summary>Port on the host (context id 2) to which the agent connects once when it is ready.</summary>
    public const uint ReadyPort = 1024;

    private readonly TtrpcClient _client;

    /// <summary>Takes over a connected client.</summary>
    public AgentClient(TtrpcClient client) => _client = client;

    /// <summary>
    /// How long a call waits for its answer: generous while a guest starts, since its kernel code may be emulated; the owner shortens
    /// it once the container is there.
    /// </summary>
    public TimeSpan DefaultTimeout { get; set; } = TimeSpan.FromSeconds(120);

    /// <summary>Connects to the agent behind a VMM's hybrid vsock socket.</summary>
    /// <param name="vsockPath">The socket.</param>
    /// <param name="timeout">How long the agent may take to accept.</param>
    /// <param name="calls">The connection's <see cref="DefaultTimeout"/>; null for the usual one.</param>
    /// <param name="readerStarts">Called on the thread that reads the agent's answers before it does; must not throw.</param>
    /// <exception cref="Linux.LinuxException">The VMM's socket does not exist or does not listen.</exception>
    /// <exception cref="TtrpcException">The agent does not listen (Unavailable) or answer in time (DeadlineExceeded).</exception>
    public static AgentClient Connect(string vsockPath, TimeSpan timeout, TimeSpan? calls = null, Action? readerStarts = null)
    {
        TtrpcClient client = new(HybridVsock.Connect(vsockPath, ServicePort, timeout, out _), readerStarts);
        return calls is null ? new AgentClient(client) : new AgentClient(client) { DefaultTimeout = calls.Value };
    }

    /// <inheritdoc/>
    public void Dispose() => _client.Dispose();
}
