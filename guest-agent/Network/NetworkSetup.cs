using MicroVm.Agent.Cgroups;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Netlink;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Network;

/// <summary>
/// Carries a network plan out by rtnetlink, in the network namespace of the socket and the calling thread. What is there
/// already is left or replaced, so that a plan can be carried out again.
/// </summary>
public sealed class NetworkSetup
{
    private const ushort Change = Libc.NLM_F_ACK;
    private const ushort Make = Libc.NLM_F_ACK | Libc.NLM_F_CREATE;
    private readonly NetlinkSocket _socket;
    private readonly string _sysctls;
    private Dictionary<string, int> _indexes = [];
    private List<Link> _links = [];

    /// <summary>Prepares.</summary>
    /// <param name="socket">A socket of the namespace, borrowed.</param>
    /// <param name="sysctls">Path of /proc/sys.</param>
    public NetworkSetup(NetlinkSocket socket, string sysctls)
    {
        _socket = socket;
        _sysctls = sysctls;
    }

    private readonly record struct Link(int Index, string Name, byte[] Mac, uint Flags);

    /// <summary>Whether there is an interface for each of the plan's.</summary>
    public bool HasAll(IEnumerable<NetworkInterface> interfaces)
    {
        ReadLinks();
        return interfaces.All(i => i.Removed || Find(i) is not null);
    }

    /// <summary>Carries <paramref name="plan"/> out.</summary>
    /// <exception cref="LinuxException">The kernel refused; the message names what.</exception>
    public void Apply(NetworkPlan plan)
    {
        ArgumentNullException.ThrowIfNull(plan);
        ReadLinks();
        foreach (Link link in _links)
        {
            if ((link.Flags & Libc.IFF_LOOPBACK) != 0 && (link.Flags & Libc.IFF_UP) == 0)
            {
                SetFlags(link.Index, Libc.IFF_UP, Libc.IFF_UP, link.Name);
            }
        }

        foreach (NetworkInterface planned in plan.Interfaces)
        {
            Configure(planned);
        }

        _indexes = _links.ToDictionary(l => l.Name, l => l.Index);
        foreach (NetworkRoute route in plan.Routes.OrderBy(Dependency))
        {
            AddRoute(route);
        }

        foreach (NetworkRule rule in plan.Rules)
        {
            AddRule(rule);
        }

        foreach (NetworkNeighbour neighbour in plan.Neighbours)
        {
            AddNeighbour(neighbour);
        }
    }

    // A gateway must be reachable by a route that is there already.
    private static int Dependency(NetworkRoute route) => route.NextHops.Any(h => h.Gateway.Length > 0) ? 1 : 0;

    private static byte Family(int length) => length == 4 ? (byte)Libc.AF_INET : (byte)Libc.AF_INET6;

    private static Libc.ifinfomsg Body(int index, uint flags = 0, uint change = 0) => new() { ifi_index = index, ifi_flags = flags, ifi_change = change };

    private void ReadLinks()
    {
        _links = [];
        _socket.Dump(new NetlinkRequest(Libc.RTM_GETLINK, Libc.NLM_F_DUMP).Append(default(Libc.ifinfomsg)), "dump of the interfaces", (_, payload) =>
        {
            if (System.Runtime.InteropServices.MemoryMarshal.TryRead(payload, out Libc.ifinfomsg body))
            {
                NetlinkAttributes attributes = new(payload[16..]);
                _links.Add(new Link(body.ifi_index, attributes.Text(Libc.IFLA_IFNAME), attributes.Bytes(Libc.IFLA_ADDRESS), body.ifi_flags));
            }
        });
    }

    // By address, since the guest's own names say nothing; several with one address by name, else in order.
    private Link? Find(NetworkInterface planned)
    {
        Link[] same = [.. _links.Where(l => planned.Mac.Span.SequenceEqual(l.Mac) && (l.Flags & Libc.IFF_LOOPBACK) == 0)];
        return same.Length == 0 ? null : same.FirstOrDefault(l => l.Name == planned.Name, same[0]);
    }

    private void Configure(NetworkInterface planned)
    {
        if (Find(planned) is not { } link)
        {
            if (planned.Removed)
            {
                return;
            }

            throw new LinuxException(Errno.ENODEV, "network interface", $"{planned.Name}: the guest found no device for it");
        }

        if (planned.Removed)
        {
            SetFlags(link.Index, 0, Libc.IFF_UP, link.Name);
            return;
        }

        if (link.Name != planned.Name)
        {
            Rename(link, planned.Name);
        }

        // Link-local addresses come with the plan, or not at all.
        foreach ((string key, string value) in planned.Ipv6Settings)
        {
            WriteSetting(planned.Name, key, value);
        }

        NetlinkRequest request = new NetlinkRequest(Libc.RTM_NEWLINK, Change)
            .Append(Body(link.Index, planned.NoArp ? Libc.IFF_NOARP : 0u, Libc.IFF_NOARP))
            .Add(Libc.IFLA_MTU, planned.Mtu);
        _socket.Execute(request, "set MTU and flags of", planned.Name);
        NetlinkRequest mode = new NetlinkRequest(Libc.RTM_NEWLINK, Change).Append(Body(link.Index)).Nest(
            Libc.IFLA_AF_SPEC, s => s.Nest((ushort)Libc.AF_INET6, v6 => v6.Add(Libc.IFLA_INET6_ADDR_GEN_MODE, [Libc.IN6_ADDR_GEN_MODE_NONE])));
        _ = _socket.TryExecute(mode, out _);
        SetFlags(link.Index, planned.Up ? (uint)Libc.IFF_UP : 0u, Libc.IFF_UP, planned.Name);
        foreach (NetworkAddress address in planned.Addresses)
        {
            AddAddress(link.Index, planned.Name, address);
        }
    }

    private void Rename(Link link, string name)
    {
        // Up, an interface keeps its name in older kernels; and another may have the name that this one is to get.
        if ((link.Flags & Libc.IFF_UP) != 0)
        {
            SetFlags(link.Index, 0, Libc.IFF_UP, link.Name);
        }

        foreach (Link other in _links.Where(l => l.Name == name).ToArray())
        {
            SetName(other, $"was{other.Index}");
        }

        SetName(_links.Single(l => l.Index == link.Index), name);
    }

    private void SetName(Link link, string name)
    {
        _socket.Execute(
            new NetlinkRequest(Libc.RTM_NEWLINK, Change).Append(Body(link.Index)).Add(Libc.IFLA_IFNAME, name), "rename", $"{link.Name} to {name}");
        _links[_links.IndexOf(link)] = link with { Name = name };
    }

    private void SetFlags(int index, uint flags, uint change, string name) => _socket.Execute(
        new NetlinkRequest(Libc.RTM_NEWLINK, Change).Append(Body(index, flags, change)), (flags & Libc.IFF_UP) != 0 ? "bring up" : "bring down", name);

    private void WriteSetting(string name, string key, string value)
    {
        try
        {
            SmallFile.Write(null, $"{_sysctls}/net/ipv6/conf/{name}/{key}", value);
        }
        catch (LinuxException e) when (e.Errno == Errno.ENOENT)
        {
            // A kernel without IPv6 has nothing to switch off.
        }
    }

    private void AddAddress(int index, string name, NetworkAddress address)
    {
        byte family = Family(address.Local.Length);

        // The address is in use by this container alone, on a link where the host had it: nobody needs to be asked.
        uint flags = address.Flags | (family == Libc.AF_INET6 ? Libc.IFA_F_NODAD : 0);
        NetlinkRequest request = new NetlinkRequest(Libc.RTM_NEWADDR, Make | Libc.NLM_F_REPLACE)
            .Append(new Libc.ifaddrmsg
            {
                ifa_family = family,
                ifa_prefixlen = (byte)address.PrefixLength,
                ifa_scope = (byte)address.Scope,
                ifa_index = (uint)index,
            })
            .Add(Libc.IFA_LOCAL, address.Local.Span)
            .Add(Libc.IFA_ADDRESS, address.Peer.Length > 0 ? address.Peer.Span : address.Local.Span)
            .Add(Libc.IFA_FLAGS, flags);
        if (address.Broadcast.Length > 0)
        {
            request.Add(Libc.IFA_BROADCAST, address.Broadcast.Span);
        }

        if (address.Label.Length > 0)
        {
            request.Add(Libc.IFA_LABEL, address.Label);
        }

        if (address.Metric > 0)
        {
            request.Add(Libc.IFA_RT_PRIORITY, address.Metric);
        }

        if (address.ValidLifetime > 0)
        {
            request.Add(Libc.IFA_CACHEINFO, new Libc.ifa_cacheinfo_t { ifa_prefered = address.PreferredLifetime, ifa_valid = address.ValidLifetime });
        }

        _socket.Execute(request, "add address", $"{new System.Net.IPAddress(address.Local.Span)}/{address.PrefixLength} to {name}");
    }

    private int IndexOf(string name, string what) => _indexes.TryGetValue(name, out int index)
        ? index
        : throw new LinuxException(Errno.ENODEV, what, $"by {name}: there is no such interface in the guest");

    private void AddRoute(NetworkRoute route)
    {
        byte hopFlags(NetworkNextHop h) => h.OnLink ? (byte)Libc.RTNH_F_ONLINK : (byte)0;
        NetworkNextHop? single = route.NextHops.Count == 1 ? route.NextHops[0] : null;
        NetlinkRequest request = new NetlinkRequest(Libc.RTM_NEWROUTE, Make | Libc.NLM_F_REPLACE)
            .Append(new Libc.rtmsg
            {
                rtm_family = (byte)route.Family,
                rtm_dst_len = (byte)route.DestinationLength,
                rtm_src_len = (byte)route.SourceLength,
                rtm_tos = (byte)route.Tos,
                rtm_protocol = (byte)route.Protocol,
                rtm_scope = (byte)route.Scope,
                rtm_type = (byte)route.Type,
                rtm_flags = single is null ? 0u : hopFlags(single),
            })
            .Add(Libc.RTA_TABLE, route.Table);
        AddBytes(request, Libc.RTA_DST, route.Destination);
        AddBytes(request, Libc.RTA_SRC, route.Source);
        AddBytes(request, Libc.RTA_PREFSRC, route.PreferredSource);
        if (route.Priority > 0)
        {
            request.Add(Libc.RTA_PRIORITY, route.Priority);
        }

        if (route.Preference > 0)
        {
            request.Add(Libc.RTA_PREF, [(byte)route.Preference]);
        }

        if (route.Metrics.Count > 0)
        {
            request.Nest(Libc.RTA_METRICS, m =>
            {
                foreach ((uint key, uint value) in route.Metrics)
                {
                    m.Add((ushort)key, value);
                }
            });
        }

        if (single is not null)
        {
            request.Add(Libc.RTA_OIF, IndexOf(single.Interface, "route"));
            AddGateway(request, route, single);
        }
        else if (route.NextHops.Count > 1)
        {
            request.Nest(Libc.RTA_MULTIPATH, m =>
            {
                foreach (NetworkNextHop hop in route.NextHops)
                {
                    m.AppendNextHop(hopFlags(hop), (byte)hop.Hops, IndexOf(hop.Interface, "route"), h => AddGateway(h, route, hop));
                }
            });
        }

        _socket.Execute(request, "add route", Describe(route));
    }

    private static string Describe(NetworkRoute route)
    {
        string to = route.Destination.Length == 0 ? "default" : $"{new System.Net.IPAddress(route.Destination.Span)}/{route.DestinationLength}";
        string by = string.Join(", ", route.NextHops.Select(h => (h.Gateway.Length == 0 ? "" : $"via {new System.Net.IPAddress(h.Gateway.Span)} ") + $"dev {h.Interface}"));
        return $"{to} {by} table {route.Table}";
    }

    private static void AddGateway(NetlinkRequest request, NetworkRoute route, NetworkNextHop hop)
    {
        if (hop.Gateway.Length == 0)
        {
            return;
        }

        if (hop.GatewayFamily != 0 && hop.GatewayFamily != route.Family)
        {
            // struct rtvia: family, address.
            request.Add(Libc.RTA_VIA, [(byte)hop.GatewayFamily, 0, .. hop.Gateway.Span]);
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

    private void AddRule(NetworkRule rule)
    {
        NetlinkRequest request = new NetlinkRequest(Libc.RTM_NEWRULE, Make | Libc.NLM_F_EXCL)
            .Append(new Libc.fib_rule_hdr
            {
                family = (byte)rule.Family,
                dst_len = (byte)rule.DestinationLength,
                src_len = (byte)rule.SourceLength,
                tos = (byte)rule.Tos,
                action = (byte)rule.Action,
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

        Errno errno = _socket.TryExecute(request, out string? text);
        if (errno is not (Errno.OK or Errno.EEXIST))
        {
            throw new LinuxException(errno, "add rule", $"of priority {rule.Priority} {text}");
        }
    }

    private void AddNeighbour(NetworkNeighbour neighbour)
    {
        NetlinkRequest request = new NetlinkRequest(Libc.RTM_NEWNEIGH, Make | Libc.NLM_F_REPLACE)
            .Append(new Libc.ndmsg
            {
                ndm_family = Family(neighbour.Address.Length),
                ndm_ifindex = IndexOf(neighbour.Interface, "neighbour"),
                ndm_state = Libc.NUD_PERMANENT,
                ndm_flags = neighbour.Proxy ? Libc.NTF_PROXY : (byte)0,
            })
            .Add(Libc.NDA_DST, neighbour.Address.Span);
        AddBytes(request, Libc.NDA_LLADDR, neighbour.LinkLayerAddress);
        _socket.Execute(request, "add neighbour", $"{new System.Net.IPAddress(neighbour.Address.Span)} on {neighbour.Interface}");
    }
}
