using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Google.Protobuf;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Netlink;
using MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Network;

/// <summary>An interface of the container's network namespace.</summary>
/// <param name="Index">Its index there.</param>
/// <param name="Name">Its name.</param>
/// <param name="Mac">Its link-layer address.</param>
/// <param name="Mtu">Its MTU.</param>
/// <param name="Flags">IFF_*.</param>
/// <param name="Kind">"veth", "macvlan"...; empty for hardware.</param>
internal sealed record HostLink(int Index, string Name, byte[] Mac, uint Mtu, uint Flags, string Kind)
{
    /// <summary>The MTU that a device announces: 68 to 65535, or 0 where it is none of those.</summary>
    internal int DeviceMtu => Mtu is >= 68 and <= ushort.MaxValue ? (int)Mtu : 0;

    /// <summary>The MAC address that a device announces.</summary>
    internal string MacText => string.Join(':', Mac.Select(b => b.ToString("x2", System.Globalization.CultureInfo.InvariantCulture)));

    /// <summary>Whether its frames are Ethernet's.</summary>
    internal bool IsEthernet { get; init; } = true;

    /// <summary>Whether what it sends goes anywhere.</summary>
    internal bool HasCarrier => (Flags & Libc.IFF_LOWER_UP) != 0;
}

/// <summary>Reads a network namespace by rtnetlink into the plan for the guest. Used in the namespace, on its thread.</summary>
internal static class NamespaceReader
{
    /// <summary>What settings of net.ipv6.conf.NAME the guest takes over.</summary>
    private static readonly string[] Ipv6Settings = ["disable_ipv6", "accept_ra", "autoconf", "forwarding"];

    private static readonly uint ForeverBits = uint.MaxValue;

    /// <summary>
    /// The Ethernet interfaces that stand for the container: not the loopback one, and not our own taps. Taps of a user-mode network
    /// (slirp4netns, pasta) and dummies count when they have an address: a tap without one is another VM's.
    /// </summary>
    /// <param name="socket">A socket of the namespace.</param>
    /// <param name="joined">Those that are joined to the VM already, whatever became of them since.</param>
    /// <param name="unsuitable">Takes those that are up, have an address, and are not Ethernet.</param>
    internal static List<HostLink> ReadLinks(NetlinkSocket socket, IReadOnlyCollection<int>? joined = null, ICollection<HostLink>? unsuitable = null)
    {
        List<HostLink> links = [], onlyAddressed = [];
        socket.DumpLinks((in Libc.ifinfomsg body, NetlinkAttributes attributes) =>
        {
            if ((body.ifi_flags & Libc.IFF_LOOPBACK) != 0)
            {
                return;
            }

            HostLink link = new(
                body.ifi_index,
                attributes.Text(Libc.IFLA_IFNAME),
                attributes.Bytes(Libc.IFLA_ADDRESS),
                attributes.UInt32(Libc.IFLA_MTU),
                body.ifi_flags,
                new NetlinkAttributes(attributes[Libc.IFLA_LINKINFO]).Text(Libc.IFLA_INFO_KIND))
            {
                IsEthernet = body.ifi_type == Libc.ARPHRD_ETHER,
            };

            // What a bridge or bond holds is reached through it.
            bool held = attributes.UInt32(Libc.IFLA_MASTER) != 0;
            if (joined?.Contains(link.Index) ?? false)
            {
                links.Add(link);
            }
            else if (!link.IsEthernet || (link.Kind is "tun" or "dummy" && !link.Name.StartsWith(ContainerNetwork.TapPrefix, StringComparison.Ordinal)))
            {
                if (!held && (link.Flags & Libc.IFF_UP) != 0)
                {
                    onlyAddressed.Add(link);
                }
            }
            else if (!held && link.Kind is not ("tun" or "bridge" or "ifb"))
            {
                links.Add(link);
            }
        });
        if (onlyAddressed.Count > 0)
        {
            HashSet<int> addressed = ReadAddressed(socket);
            onlyAddressed.RemoveAll(l => !addressed.Contains(l.Index));
            links.AddRange(onlyAddressed.FindAll(l => l.IsEthernet));
            links.Sort((a, b) => a.Index.CompareTo(b.Index));
            onlyAddressed.FindAll(l => !l.IsEthernet).ForEach(l => unsuitable?.Add(l));
        }

        return links;
    }

    /// <summary>The plan for <paramref name="links"/>: their addresses, the namespace's routes, rules and permanent neighbours.</summary>
    internal static NetworkPlan Read(NetlinkSocket socket, IReadOnlyList<HostLink> links)
    {
        NetworkPlan plan = new();
        Dictionary<int, NetworkInterface> byIndex = [];
        foreach (HostLink link in links)
        {
            NetworkInterface planned = new()
            {
                Name = link.Name,
                Mac = ByteString.CopyFrom(link.Mac),
                Mtu = link.Mtu,
                Up = (link.Flags & Libc.IFF_UP) != 0,
                NoArp = (link.Flags & Libc.IFF_NOARP) != 0,
            };
            foreach (string key in Ipv6Settings)
            {
                string path = $"/proc/sys/net/ipv6/conf/{link.Name}/{key}";
                if (File.Exists(path))
                {
                    planned.Ipv6Settings[key] = File.ReadAllText(path).Trim();
                }
            }

            byIndex.Add(link.Index, planned);
            plan.Interfaces.Add(planned);
        }

        ReadAddresses(socket, byIndex);
        foreach (byte family in (ReadOnlySpan<byte>)[Libc.AF_INET, Libc.AF_INET6])
        {
            ReadRoutes(socket, family, byIndex, plan);
            ReadRules(socket, family, plan);
        }

        ReadNeighbours(socket, byIndex, plan);
        return plan;
    }

    /// <summary>The addresses of the interfaces that stand for the container: "10.88.0.2/16", except for link-local ones.</summary>
    internal static List<string> ReadAddresses(NetlinkSocket socket)
    {
        Dictionary<int, NetworkInterface> byIndex = ReadLinks(socket).ToDictionary(l => l.Index, _ => new NetworkInterface());
        ReadAddresses(socket, byIndex);
        return [.. byIndex.Values.SelectMany(i => i.Addresses)
            .Where(a => a.Scope < Libc.RT_SCOPE_LINK)
            .Select(a => $"{new System.Net.IPAddress(a.Local.Span)}/{a.PrefixLength}")];
    }

    /// <summary>The interfaces that have an address which is not link-local.</summary>
    private static HashSet<int> ReadAddressed(NetlinkSocket socket)
    {
        HashSet<int> found = [];
        NetlinkRequest request = new NetlinkRequest(Libc.RTM_GETADDR, Libc.NLM_F_DUMP).Append(default(Libc.ifaddrmsg));
        socket.Dump(request, "dump of the addresses", (_, payload) =>
        {
            if (MemoryMarshal.TryRead(payload, out Libc.ifaddrmsg body) && body.ifa_scope < Libc.RT_SCOPE_LINK)
            {
                found.Add((int)body.ifa_index);
            }
        });
        return found;
    }

    private static void ReadAddresses(NetlinkSocket socket, Dictionary<int, NetworkInterface> byIndex)
    {
        NetlinkRequest request = new NetlinkRequest(Libc.RTM_GETADDR, Libc.NLM_F_DUMP).Append(default(Libc.ifaddrmsg));
        socket.Dump(request, "dump of the addresses", (type, payload) =>
        {
            if (!MemoryMarshal.TryRead(payload, out Libc.ifaddrmsg body) || !byIndex.TryGetValue((int)body.ifa_index, out NetworkInterface? planned))
            {
                return;
            }

            NetlinkAttributes attributes = new(payload[8..]);
            byte[] address = attributes.Bytes(Libc.IFA_ADDRESS);
            byte[] local = attributes.Has(Libc.IFA_LOCAL) ? attributes.Bytes(Libc.IFA_LOCAL) : address;
            if (local.Length is not (4 or 16))
            {
                return;
            }

            uint flags = attributes.Has(Libc.IFA_FLAGS) ? attributes.UInt32(Libc.IFA_FLAGS) : body.ifa_flags;
            _ = attributes.TryRead(Libc.IFA_CACHEINFO, out Libc.ifa_cacheinfo_t lifetimes);
            bool forever = (flags & Libc.IFA_F_PERMANENT) != 0 && (flags & Libc.IFA_F_DEPRECATED) == 0;
            planned.Addresses.Add(new NetworkAddress
            {
                Local = ByteString.CopyFrom(local),
                Peer = address.AsSpan().SequenceEqual(local) ? ByteString.Empty : ByteString.CopyFrom(address),
                Broadcast = ByteString.CopyFrom(attributes.Bytes(Libc.IFA_BROADCAST)),
                PrefixLength = body.ifa_prefixlen,
                Scope = body.ifa_scope,
                Flags = flags & (Libc.IFA_F_NODAD | Libc.IFA_F_MANAGETEMPADDR | Libc.IFA_F_NOPREFIXROUTE),
                Label = attributes.Text(Libc.IFA_LABEL),
                PreferredLifetime = forever ? ForeverBits : lifetimes.ifa_prefered,
                ValidLifetime = forever ? ForeverBits : lifetimes.ifa_valid,
                Metric = attributes.UInt32(Libc.IFA_RT_PRIORITY),
            });
        });
    }

    private static void ReadRoutes(NetlinkSocket socket, byte family, Dictionary<int, NetworkInterface> byIndex, NetworkPlan plan)
    {
        NetlinkRequest request = new NetlinkRequest(Libc.RTM_GETROUTE, Libc.NLM_F_DUMP).Append(new Libc.rtmsg { rtm_family = family });
        socket.Dump(request, "dump of the routes", (_, payload) =>
        {
            if (!MemoryMarshal.TryRead(payload, out Libc.rtmsg body))
            {
                return;
            }

            NetlinkAttributes attributes = new(payload[12..]);
            uint table = attributes.Has(Libc.RTA_TABLE) ? attributes.UInt32(Libc.RTA_TABLE) : body.rtm_table;

            // The guest's kernel makes those of its addresses itself.
            if (table == Libc.RT_TABLE_LOCAL || body.rtm_protocol == Libc.RTPROT_KERNEL || (body.rtm_flags & Libc.RTM_F_CLONED) != 0)
            {
                return;
            }

            NetworkRoute route = new()
            {
                Family = family,
                Destination = ByteString.CopyFrom(attributes.Bytes(Libc.RTA_DST)),
                DestinationLength = body.rtm_dst_len,
                Source = ByteString.CopyFrom(attributes.Bytes(Libc.RTA_SRC)),
                SourceLength = body.rtm_src_len,
                Tos = body.rtm_tos,
                Table = table,
                Protocol = body.rtm_protocol,
                Scope = body.rtm_scope,
                Type = body.rtm_type,
                Priority = attributes.UInt32(Libc.RTA_PRIORITY),
                PreferredSource = ByteString.CopyFrom(attributes.Bytes(Libc.RTA_PREFSRC)),
                Preference = attributes[Libc.RTA_PREF] is [byte preference, ..] ? preference : 0u,
            };
            ReadOnlySpan<byte> metrics = attributes[Libc.RTA_METRICS];
            while (NetlinkAttributes.TryNext(ref metrics, out ushort key, out ReadOnlySpan<byte> value))
            {
                // A string (the congestion control's name) is left out.
                if (value.Length == sizeof(uint))
                {
                    route.Metrics[key] = BinaryPrimitives.ReadUInt32LittleEndian(value);
                }
            }

            if (TryReadHops(attributes, body, byIndex, route))
            {
                plan.Routes.Add(route);
            }
        });
    }

    private static bool TryReadHops(NetlinkAttributes attributes, in Libc.rtmsg body, Dictionary<int, NetworkInterface> byIndex, NetworkRoute route)
    {
        if (attributes.Has(Libc.RTA_MULTIPATH))
        {
            ReadOnlySpan<byte> rest = attributes[Libc.RTA_MULTIPATH];
            while (MemoryMarshal.TryRead(rest, out Libc.rtnexthop hop) && hop.rtnh_len >= 8 && hop.rtnh_len <= rest.Length)
            {
                if (byIndex.TryGetValue(hop.rtnh_ifindex, out NetworkInterface? planned))
                {
                    route.NextHops.Add(Hop(planned.Name, new NetlinkAttributes(rest[8..hop.rtnh_len]), hop.rtnh_flags, hop.rtnh_hops));
                }

                rest = rest[Math.Min(rest.Length, (hop.rtnh_len + 3) & ~3)..];
            }

            return route.NextHops.Count > 0;
        }

        if (byIndex.TryGetValue((int)attributes.UInt32(Libc.RTA_OIF), out NetworkInterface? only))
        {
            route.NextHops.Add(Hop(only.Name, attributes, body.rtm_flags, 0));
            return true;
        }

        // Unreachable, blackhole and prohibit routes need no interface; routes via interfaces that the guest lacks are skipped.
        return body.rtm_type != Libc.RTN_UNICAST && body.rtm_type != Libc.RTN_LOCAL;
    }

    private static NetworkNextHop Hop(string name, NetlinkAttributes attributes, uint flags, byte hops)
    {
        NetworkNextHop hop = new() { Interface = name, OnLink = (flags & Libc.RTNH_F_ONLINK) != 0, Hops = hops };
        if (attributes[Libc.RTA_VIA] is { Length: > 2 } via)
        {
            hop.GatewayFamily = via[0];
            hop.Gateway = ByteString.CopyFrom(via[2..]);
        }
        else
        {
            hop.Gateway = ByteString.CopyFrom(attributes[Libc.RTA_GATEWAY]);
        }

        return hop;
    }

    private static void ReadRules(NetlinkSocket socket, byte family, NetworkPlan plan)
    {
        const uint LastOfDefault = 32766;
        NetlinkRequest request = new NetlinkRequest(Libc.RTM_GETRULE, Libc.NLM_F_DUMP).Append(new Libc.fib_rule_hdr { family = family });
        socket.Dump(request, "dump of the rules", (_, payload) =>
        {
            if (!MemoryMarshal.TryRead(payload, out Libc.fib_rule_hdr body))
            {
                return;
            }

            NetlinkAttributes attributes = new(payload[12..]);
            uint priority = attributes.UInt32(Libc.FRA_PRIORITY);

            // 0, 32766 and 32767 are every namespace's from the start.
            if (priority is 0 or LastOfDefault or LastOfDefault + 1)
            {
                return;
            }

            plan.Rules.Add(new NetworkRule
            {
                Family = family,
                Destination = ByteString.CopyFrom(attributes.Bytes(Libc.FRA_DST)),
                DestinationLength = body.dst_len,
                Source = ByteString.CopyFrom(attributes.Bytes(Libc.FRA_SRC)),
                SourceLength = body.src_len,
                Tos = body.tos,
                Table = attributes.Has(Libc.FRA_TABLE) ? attributes.UInt32(Libc.FRA_TABLE) : body.table,
                Action = body.action,
                Flags = body.flags & 2, // FIB_RULE_INVERT; the other bits are the kernel's own.
                Priority = priority,
                Mark = attributes.UInt32(Libc.FRA_FWMARK),
                MarkMask = attributes.UInt32(Libc.FRA_FWMASK),
                InputInterface = attributes.Text(Libc.FRA_IIFNAME),
                OutputInterface = attributes.Text(Libc.FRA_OIFNAME),
                SuppressPrefix = attributes.Has(Libc.FRA_SUPPRESS_PREFIXLEN) ? unchecked(attributes.UInt32(Libc.FRA_SUPPRESS_PREFIXLEN) + 1) : 0,
            });
        });
    }

    private static void ReadNeighbours(NetlinkSocket socket, Dictionary<int, NetworkInterface> byIndex, NetworkPlan plan)
    {
        NetlinkRequest request = new NetlinkRequest(Libc.RTM_GETNEIGH, Libc.NLM_F_DUMP).Append(default(Libc.ndmsg));
        socket.Dump(request, "dump of the neighbours", (_, payload) =>
        {
            if (!MemoryMarshal.TryRead(payload, out Libc.ndmsg body) || (body.ndm_state & Libc.NUD_PERMANENT) == 0
                || !byIndex.TryGetValue(body.ndm_ifindex, out NetworkInterface? planned))
            {
                return;
            }

            NetlinkAttributes attributes = new(payload[12..]);
            byte[] address = attributes.Bytes(Libc.NDA_DST);
            if (address.Length is 4 or 16)
            {
                plan.Neighbours.Add(new NetworkNeighbour
                {
                    Interface = planned.Name,
                    Address = ByteString.CopyFrom(address),
                    LinkLayerAddress = ByteString.CopyFrom(attributes.Bytes(Libc.NDA_LLADDR)),
                });
            }
        });
    }
}
