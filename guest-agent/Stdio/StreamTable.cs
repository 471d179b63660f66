using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Stdio;

/// <summary>
/// Connections that the host made for stdio and that no process has taken yet, by the host's port. Owns them until they
/// are taken.
/// </summary>
public sealed class StreamTable : IEventHandler
{
    private const int MaxWaiting = 1024;
    private readonly Dictionary<uint, SafeFd> _waiting = [];
    private SafeFd? _listener;

    /// <summary>Takes connections from a vsock listener, which stays the caller's.</summary>
    public void Listen(EventLoop loop, SafeFd listener)
    {
        ArgumentNullException.ThrowIfNull(loop);
        _listener = listener;
        loop.Add(listener, Libc.EPOLLIN, this);
    }

    /// <summary>Adds a connection, non-blocking; one of the same port that nobody took is closed.</summary>
    public void Add(uint port, SafeFd connection)
    {
        ArgumentNullException.ThrowIfNull(connection);
        if (_waiting.Count >= MaxWaiting)
        {
            connection.Dispose();
            return;
        }

        if (_waiting.Remove(port, out SafeFd? old))
        {
            old.Dispose();
        }

        _waiting.Add(port, connection);
    }

    /// <summary>Takes the connection of a port, which becomes the caller's; null when there is none.</summary>
    public SafeFd? Take(uint port)
    {
        if (!_waiting.ContainsKey(port))
        {
            // The request may overtake the event that tells of the connection.
            Accept();
        }

        return _waiting.Remove(port, out SafeFd? fd) ? fd : null;
    }

    void IEventHandler.OnReady(SafeFd fd, uint events) => Accept();

    private void Accept()
    {
        while (_listener is not null && VsockSocket.Accept(_listener, out uint port) is { } connection)
        {
            Add(port, connection);
        }
    }
}
