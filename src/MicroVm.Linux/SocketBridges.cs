namespace MicroVm.Linux;

/// <summary>The bridges of one owner on an <see cref="EventLoop"/>, up to a bound. On the loop's thread, or after its end.</summary>
/// <param name="loop">The loop.</param>
/// <param name="most">Most bridges at once.</param>
public sealed class SocketBridges(EventLoop loop, int most)
{
    private readonly HashSet<SocketBridge> _bridges = [];

    /// <summary>How many there are.</summary>
    public int Count => _bridges.Count;

    /// <summary>There is no room for one more.</summary>
    public bool IsFull => Count >= most;

    /// <summary>Joins two sockets, which are taken over; the owner looks at the bound before it connects one.</summary>
    /// <param name="a">As <see cref="SocketBridge"/> takes it.</param>
    /// <param name="b">As <see cref="SocketBridge"/> takes it.</param>
    /// <param name="greeting">Sent to <paramref name="b"/> before what comes from <paramref name="a"/>; at most 64 KiB.</param>
    /// <returns>OK, or why a socket cannot be watched: then both are closed.</returns>
    public Errno Join(SafeFd a, SafeFd b, ReadOnlySpan<byte> greeting = default)
    {
        try
        {
            SocketBridge? bridge = null;
            bridge = new SocketBridge(loop, a, b, () => _bridges.Remove(bridge!), greeting);
            _ = _bridges.Add(bridge);
            return Errno.OK;
        }
        catch (LinuxException e)
        {
            return e.Errno;
        }
    }

    /// <summary>Closes all.</summary>
    public void CloseAll()
    {
        foreach (SocketBridge bridge in _bridges.ToArray())
        {
            bridge.Dispose();
        }
    }
}
