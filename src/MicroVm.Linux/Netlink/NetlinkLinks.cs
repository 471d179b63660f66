using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using MicroVm.Linux.Native;

namespace MicroVm.Linux.Netlink;

/// <summary>Gets an interface of a dump: its fixed part and its attributes (IFLA_*).</summary>
public delegate void LinkReader(in Libc.ifinfomsg link, NetlinkAttributes attributes);

/// <summary>What readers and writers of interfaces have in common (rtnetlink(7), RTM_*LINK).</summary>
public static class NetlinkLinks
{
    /// <summary>Hands every interface of the namespace over.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static void DumpLinks(this NetlinkSocket socket, LinkReader reader)
    {
        ArgumentNullException.ThrowIfNull(socket);
        ArgumentNullException.ThrowIfNull(reader);
        NetlinkRequest request = new NetlinkRequest(Libc.RTM_GETLINK, Libc.NLM_F_DUMP).Append(default(Libc.ifinfomsg));
        socket.Dump(request, "dump of the interfaces", (_, payload) =>
        {
            if (MemoryMarshal.TryRead(payload, out Libc.ifinfomsg link))
            {
                reader(in link, new NetlinkAttributes(payload[Unsafe.SizeOf<Libc.ifinfomsg>()..]));
            }
        });
    }

    /// <summary>Starts a request that changes an interface.</summary>
    /// <param name="index">Its index.</param>
    /// <param name="flags">IFF_*: what those of <paramref name="change"/> become.</param>
    /// <param name="change">IFF_* that change.</param>
    public static NetlinkRequest Change(int index, uint flags = 0, uint change = 0) =>
        new NetlinkRequest(Libc.RTM_NEWLINK, Libc.NLM_F_ACK).Append(new Libc.ifinfomsg { ifi_index = index, ifi_flags = flags, ifi_change = change });

    /// <summary>Has the kernel give an interface no link-local address of its own making; one without IPv6 has none anyway.</summary>
    public static void MakeNoLinkLocalAddress(this NetlinkSocket socket, int index)
    {
        ArgumentNullException.ThrowIfNull(socket);
        NetlinkRequest mode = Change(index).Nest(
            Libc.IFLA_AF_SPEC, s => s.Nest((ushort)Libc.AF_INET6, v6 => v6.Add(Libc.IFLA_INET6_ADDR_GEN_MODE, [Libc.IN6_ADDR_GEN_MODE_NONE])));
        _ = socket.TryExecute(mode, out _);
    }
}
