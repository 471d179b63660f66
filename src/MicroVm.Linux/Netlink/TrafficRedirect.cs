using System.Runtime.InteropServices;
using MicroVm.Linux.Native;

namespace MicroVm.Linux.Netlink;

/// <summary>
/// tc's ingress redirect (tc-mirred(8)): everything that arrives at one interface leaves by another, and the host's own stack
/// sees nothing of it.
/// </summary>
public static class TrafficRedirect
{
    /// <summary>The priority by which our filter is known from others: "MV".</summary>
    public const ushort Priority = 0x4d56;

    private const uint IngressHandle = 0xffff0000;

    /// <summary>Redirects what arrives at <paramref name="from"/> to <paramref name="to"/>, interfaces by index. A redirect of an earlier run is replaced.</summary>
    /// <exception cref="LinuxException">The kernel lacks the ingress queueing discipline, a classifier, or the mirred action.</exception>
    public static void Add(NetlinkSocket socket, int from, int to, string what)
    {
        ArgumentNullException.ThrowIfNull(socket);
        NetlinkRequest qdisc = new NetlinkRequest(Libc.RTM_NEWQDISC, Libc.NLM_F_ACK | Libc.NLM_F_CREATE | Libc.NLM_F_EXCL)
            .Append(new Libc.tcmsg { tcm_ifindex = from, tcm_handle = IngressHandle, tcm_parent = Libc.TC_H_INGRESS })
            .Add(Libc.TCA_KIND, "ingress");
        Errno errno = socket.TryExecute(qdisc, out string? text);
        if (errno is not (Errno.OK or Errno.EEXIST))
        {
            throw new LinuxException(errno, "tc qdisc add ingress", $"{what} {text}");
        }

        _ = socket.TryExecute(Filter(Libc.RTM_DELTFILTER, Libc.NLM_F_ACK, from), out _);

        // matchall is younger and cheaper; u32 with a key that matches everything is in every kernel.
        if (socket.TryExecute(MatchAll(from, to), out _) != Errno.OK)
        {
            socket.Execute(U32(from, to), "tc filter add u32 mirred", what);
        }
    }

    /// <summary>Undoes <see cref="Add"/>; where nothing is left to undo, nothing happens.</summary>
    public static void Remove(NetlinkSocket socket, int from)
    {
        ArgumentNullException.ThrowIfNull(socket);
        if (socket.TryExecute(Filter(Libc.RTM_DELTFILTER, Libc.NLM_F_ACK, from), out _) != Errno.OK)
        {
            return;
        }

        bool others = false;
        NetlinkRequest list = new NetlinkRequest(Libc.RTM_GETTFILTER, Libc.NLM_F_DUMP)
            .Append(new Libc.tcmsg { tcm_ifindex = from, tcm_parent = IngressHandle });
        socket.Dump(list, "tc filter show", (type, _) => others |= type == Libc.RTM_NEWTFILTER);
        if (!others)
        {
            _ = socket.TryExecute(
                new NetlinkRequest(Libc.RTM_DELQDISC, Libc.NLM_F_ACK)
                    .Append(new Libc.tcmsg { tcm_ifindex = from, tcm_handle = IngressHandle, tcm_parent = Libc.TC_H_INGRESS }),
                out _);
        }
    }

    private static NetlinkRequest Filter(ushort type, ushort flags, int from) => new NetlinkRequest(type, flags).Append(new Libc.tcmsg
    {
        tcm_ifindex = from,
        tcm_parent = IngressHandle,

        // Priority, and the protocol in network byte order.
        tcm_info = ((uint)Priority << 16) | (ushort)System.Net.IPAddress.HostToNetworkOrder((short)Libc.ETH_P_ALL),
    });

    private static NetlinkRequest MatchAll(int from, int to) =>
        Filter(Libc.RTM_NEWTFILTER, Libc.NLM_F_ACK | Libc.NLM_F_CREATE | Libc.NLM_F_EXCL, from)
            .Add(Libc.TCA_KIND, "matchall")
            .Nest(Libc.TCA_OPTIONS, o => o.Nest(Libc.TCA_MATCHALL_ACT, a => Redirect(a, to)));

    private static NetlinkRequest U32(int from, int to) =>
        Filter(Libc.RTM_NEWTFILTER, Libc.NLM_F_ACK | Libc.NLM_F_CREATE | Libc.NLM_F_EXCL, from)
            .Add(Libc.TCA_KIND, "u32")
            .Nest(Libc.TCA_OPTIONS, o =>
            {
                Libc.tc_u32_sel selector = new() { flags = Libc.TC_U32_TERMINAL, nkeys = 1 };
                Libc.tc_u32_key everything = default;
                o.Add(Libc.TCA_U32_SEL, [.. Bytes(selector), .. Bytes(everything)]);
                o.Nest(Libc.TCA_U32_ACT, a => Redirect(a, to));
            });

    private static void Redirect(NetlinkRequest actions, int to) => actions.Nest(1, first =>
    {
        first.Add(Libc.TCA_ACT_KIND, "mirred");
        first.Nest(Libc.TCA_ACT_OPTIONS, o => o.Add(
            Libc.TCA_MIRRED_PARMS, new Libc.tc_mirred { action = Libc.TC_ACT_STOLEN, eaction = Libc.TCA_EGRESS_REDIR, ifindex = (uint)to }));
    });

    private static byte[] Bytes<T>(T value)
        where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray();
}
