using System.Net;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Netlink;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Network;

/// <summary>The rtnetlink messages by which the parts of a network plan are added and removed (rtnetlink(7)).</summary>
internal static class NetworkMessages
{
    /// <summary>RTM_NEWADDR or RTM_DELADDR.</summary>
    internal static NetlinkRequest Address(ushort type, ushort flags, int index, NetworkAddress address)
    {
        byte family = Family(address.Local.Length);
        NetlinkRequest request = new NetlinkRequest(type, flags)
            .Append(new Libc.ifaddrmsg
            {
                ifa_family = family,
                ifa_prefixlen = Byte(address.PrefixLength),
                ifa_scope = Byte(address.Scope),
                ifa_index = (uint)index,
            })
            .Add(Libc.IFA_LOCAL, address.Local.Span)
            .Add(Libc.IFA_ADDRESS, address.Peer.Length > 0 ? address.Peer.Span : address.Local.Span);
        if (type == Libc.RTM_DELADDR)
        {
            return request;
        }

        // The address is in use by this container alone, on a link where the host had it: nobody needs to be asked.
        request.Add(Libc.IFA_FLAGS, address.Flags | (family == Libc.AF_INET6 ? Libc.IFA_F_NODAD : 0));
        AddBytes(request, Libc.IFA_BROADCAST, address.Broadcast);
        if (address.Label.Length > 0)
        {
            request.Add(Libc.IFA_LABEL, address.Label);
        }

        AddNumber(request, Libc.IFA_RT_PRIORITY, address.Metric);
        if (address.ValidLifetime > 0)
        {
            request.Add(Libc.IFA_CACHEINFO, new Libc.ifa_cacheinfo_t { ifa_prefered = address.PreferredLifetime, ifa_valid = address.ValidLifetime });
        }

        return request;
    }

    /// <summary>RTM_NEWROUTE or RTM_DELROUTE.</summary>
    /// <param name="type">Which.</param>
    /// <param name="flags">NLM_F_*.</param>
    /// <param name="route">The route.</param>
    /// <param name="indexOf">An interface's index by its name.</param>
    internal static NetlinkRequest Route(ushort type, ushort flags, NetworkRoute route, Func<string, int> indexOf)
    {
        static byte HopFlags(NetworkNextHop h) => h.OnLink ? (byte)Libc.RTNH_F_ONLINK : (byte)0;
        NetworkNextHop? single = route.NextHops.Count == 1 ? route.NextHops[0] : null;
        NetlinkRequest request = new NetlinkRequest(type, flags)
            .Append(new Libc.rtmsg
            {
                rtm_family = Byte(route.Family),
                rtm_dst_len = Byte(route.DestinationLength),
                rtm_src_len = Byte(route.SourceLength),
                rtm_tos = Byte(route.Tos),
                rtm_protocol = Byte(route.Protocol),
                rtm_scope = Byte(route.Scope),
                rtm_type = Byte(route.Type),
                rtm_flags = single is null ? 0u : HopFlags(single),
            })
            .Add(Libc.RTA_TABLE, route.Table);
        AddBytes(request, Libc.RTA_DST, route.Destination);
        AddBytes(request, Libc.RTA_SRC, route.Source);
        AddBytes(request, Libc.RTA_PREFSRC, route.PreferredSource);
        AddNumber(request, Libc.RTA_PRIORITY, route.Priority);
        if (route.Preference > 0)
        {
            request.Add(Libc.RTA_PREF, [Byte(route.Preference)]);
        }

        if (route.Metrics.Count > 0)
        {
            request.Nest(Libc.RTA_METRICS, m =>
            {
                foreach ((uint key, uint value) in route.Metrics)
                {
                    m.Add(key <= ushort.MaxValue ? (ushort)key : throw new LinuxException(Errno.EINVAL, "network plan", $"metric {key}"), value);
                }
            });
        }

        if (single is not null)
        {
            request.Add(Libc.RTA_OIF, indexOf(single.Interface));
            AddGateway(request, route, single);
        }
        else if (route.NextHops.Count > 1)
        {
            request.Nest(Libc.RTA_MULTIPATH, m =>
            {
                foreach (NetworkNextHop hop in route.NextHops)
                {
                    m.AppendNextHop(HopFlags(hop), Byte(hop.Hops), indexOf(hop.Interface), h => AddGateway(h, route, hop));
                }
            });
        }

        return request;
    }

    /// <summary>RTM_NEWRULE or RTM_DELRULE.</summary>
    internal static NetlinkRequest Rule(ushort type, ushort flags, NetworkRule rule)
    {
        NetlinkRequest request = new NetlinkRequest(type, flags)
            .Append(new Libc.fib_rule_hdr
            {
                family = Byte(rule.Family),
                dst_len = Byte(rule.DestinationLength),
                src_len = Byte(rule.SourceLength),
                tos = Byte(rule.Tos),
                action = Byte(rule.Action),
                flags = rule.Flags,
            })
            .Add(Libc.FRA_PRIORITY, rule.Priority)
            .Add(Libc.FRA_TABLE, rule.Table);
        AddBytes(request, Libc.FRA_DST, rule.Destination);
        AddBytes(request, Libc.FRA_SRC, rule.Source);
        if (rule.InputInterface.Length > 0)
        {
            request.Add(Libc.FRA_IIFNAME, rule.InputInterface);
        }

        if (rule.OutputInterface.Length > 0)
        {
            request.Add(Libc.FRA_OIFNAME, rule.OutputInterface);
        }

        if (rule.MarkMask > 0)
        {
            request.Add(Libc.FRA_FWMARK, rule.Mark).Add(Libc.FRA_FWMASK, rule.MarkMask);
        }

        if (rule.SuppressPrefix > 0)
        {
            request.Add(Libc.FRA_SUPPRESS_PREFIXLEN, rule.SuppressPrefix - 1);
        }

        return request;
    }

    /// <summary>RTM_NEWNEIGH or RTM_DELNEIGH.</summary>
    internal static NetlinkRequest Neighbour(ushort type, ushort flags, int index, NetworkNeighbour neighbour)
    {
        NetlinkRequest request = new NetlinkRequest(type, flags)
            .Append(new Libc.ndmsg
            {
                ndm_family = Family(neighbour.Address.Length),
                ndm_ifindex = index,
                ndm_state = Libc.NUD_PERMANENT,
                ndm_flags = neighbour.Proxy ? Libc.NTF_PROXY : (byte)0,
            })
            .Add(Libc.NDA_DST, neighbour.Address.Span);
        AddBytes(request, Libc.NDA_LLADDR, neighbour.LinkLayerAddress);
        return request;
    }

    /// <summary>A route in words.</summary>
    internal static string Describe(NetworkRoute route)
    {
        string to = route.Destination.Length == 0 ? "default" : $"{Text(route.Destination)}/{route.DestinationLength}";
        string by = string.Join(", ", route.NextHops.Select(h => (h.Gateway.Length == 0 ? "" : $"via {Text(h.Gateway)} ") + $"dev {h.Interface}"));
        return $"{to} {by} table {route.Table}";
    }

    /// <summary>An address for messages; bytes that are none, as they are.</summary>
    internal static string Text(Google.Protobuf.ByteString address) =>
        address.Length is 4 or 16 ? new IPAddress(address.Span).ToString() : $"0x{Convert.ToHexStringLower(address.Span)}";

    // Cut off, a prefix of 256 bits would be a default route.
    private static byte Byte(uint value) =>
        value <= byte.MaxValue ? (byte)value : throw new LinuxException(Errno.EINVAL, "network plan", $"{value} where a byte is to be");

    private static byte Family(int length) => length == 4 ? (byte)Libc.AF_INET : (byte)Libc.AF_INET6;

    private static void AddGateway(NetlinkRequest request, NetworkRoute route, NetworkNextHop hop)
    {
        if (hop.Gateway.Length == 0)
        {
            return;
        }

        if (hop.GatewayFamily != 0 && hop.GatewayFamily != route.Family)
        {
            // struct rtvia: family, address.
            request.Add(Libc.RTA_VIA, [Byte(hop.GatewayFamily), 0, .. hop.Gateway.Span]);
        }
        else
        {
            request.Add(Libc.RTA_GATEWAY, hop.Gateway.Span);
        }
    }

    private static void AddBytes(NetlinkRequest request, ushort type, Google.Protobuf.ByteString value)
    {
        if (value.Length > 0)
        {
            request.Add(type, value.Span);
        }
    }

    private static void AddNumber(NetlinkRequest request, ushort type, uint value)
    {
        if (value > 0)
        {
            request.Add(type, value);
        }
    }
}
