using MicroVm.Agent.Boot;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Netlink;

namespace MicroVm.Agent.Network;

/// <summary>
/// Interfaces whose link is about to come up. The kernel changes an interface's operational state (RFC 2863) in a work item of its own, a
/// moment after the device has its link; a container's first process finds it up.
/// </summary>
internal sealed class ExpectedLinks
{
    // The kernel puts such a change off for a second at most.
    private const int Milliseconds = 1000, MaxPauseMilliseconds = 16;
    private const byte Up = Libc.IF_OPER_UP;
    private readonly HashSet<string> _names = [];

    /// <summary>Waits for these from now on. Loop thread.</summary>
    public void Expect(IEnumerable<string> names) => _names.UnionWith(names);

    /// <summary>Whether nothing is waited for. Loop thread, and no other while <see cref="Await"/> runs.</summary>
    /// <exception cref="LinuxException">The kernel refuses to tell.</exception>
    public bool AreUp()
    {
        if (_names.Count == 0)
        {
            return true;
        }

        using NetlinkSocket socket = new();
        Look(socket, _names);
        return _names.Count == 0;
    }

    /// <summary>What is waited for, and no longer by the next caller. Loop thread.</summary>
    public HashSet<string> Take()
    {
        HashSet<string> names = [.. _names];
        _names.Clear();
        return names;
    }

    /// <summary>Waits until all are up, are gone, or the time is over. Any thread.</summary>
    /// <exception cref="LinuxException">The kernel refuses to tell.</exception>
    public static void Await(HashSet<string> names)
    {
        using NetlinkSocket socket = new();
        long deadline = Environment.TickCount64 + Milliseconds;
        for (int pause = 1; Environment.TickCount64 < deadline; pause = Math.Min(pause * 2, MaxPauseMilliseconds))
        {
            Thread.Sleep(pause);
            Look(socket, names);
            if (names.Count == 0)
            {
                return;
            }
        }

        Log.Debug($"{string.Join(", ", names)}: no link after {Milliseconds} ms");
    }

    // One that is gone is not waited for.
    private static void Look(NetlinkSocket socket, HashSet<string> names)
    {
        HashSet<string> down = [];
        socket.DumpLinks((in Libc.ifinfomsg link, NetlinkAttributes attributes) =>
        {
            if (attributes.Bytes(Libc.IFLA_OPERSTATE) is not [Up])
            {
                down.Add(attributes.Text(Libc.IFLA_IFNAME));
            }
        });
        names.IntersectWith(down);
    }
}
