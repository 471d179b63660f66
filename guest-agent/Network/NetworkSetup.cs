using MicroVm.Agent.Boot;
using MicroVm.Agent.Cgroups;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Netlink;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Network;

/// <summary>
/// Carries a network plan out by rtnetlink, in the network namespace of the socket and the calling thread. What is there
/// already is left or replaced, so that a plan can be carried out again. One part that fails does not keep the others back.
/// </summary>
public sealed class NetworkSetup
{
    private const ushort Change = Libc.NLM_F_ACK;
    private const ushort Make = Libc.NLM_F_ACK | Libc.NLM_F_CREATE;
    private readonly NetlinkSocket _socket;
    private readonly string _sysctls;
    private Dictionary<string, int> _indexes = [];
    private List<Link> _links = [];
    private LinuxException? _failure;

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
    /// <exception cref="LinuxException">The kernel refused something; the message names what. The rest is done.</exception>
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

        if (plan.Removed is { } removed)
        {
            Remove(removed);
        }

        Each(plan.Interfaces, Configure);
        IndexLinks();
        Each(plan.Routes.OrderBy(Dependency), AddRoute);
        Each(plan.Rules, AddRule);
        Each(plan.Neighbours, n => _socket.Execute(
            NetworkMessages.Neighbour(Libc.RTM_NEWNEIGH, Make | Libc.NLM_F_REPLACE, IndexOf(n.Interface, "neighbour"), n),
            "add neighbour",
            $"{NetworkMessages.Text(n.Address)} on {n.Interface}"));
        if (_failure is not null)
        {
            throw _failure;
        }
    }

    // A gateway must be reachable by a route that is there already.
    private static int Dependency(NetworkRoute route) => route.NextHops.Any(h => h.Gateway.Length > 0) ? 1 : 0;

    private void ReadLinks()
    {
        _links = [];
        _socket.DumpLinks((in Libc.ifinfomsg link, NetlinkAttributes attributes) =>
            _links.Add(new Link(link.ifi_index, attributes.Text(Libc.IFLA_IFNAME), attributes.Bytes(Libc.IFLA_ADDRESS), link.ifi_flags)));
    }

    // By address, since the guest's own names say nothing; several with one address by name, else in order.
    private Link? Find(NetworkInterface planned)
    {
        return planned.OldMac.Length > 0 && By(planned.OldMac) is { } before ? before : By(planned.Mac);

        Link? By(Google.Protobuf.ByteString mac)
        {
            Link[] same = [.. _links.Where(l => mac.Span.SequenceEqual(l.Mac) && (l.Flags & Libc.IFF_LOOPBACK) == 0)];
            return same.Length == 0 ? null : same.FirstOrDefault(l => l.Name == planned.Name, same[0]);
        }
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
            if (!NetworkDrivers.Unbind(link.Name))
            {
                SetFlags(link.Index, 0, Libc.IFF_UP, link.Name);
            }

            _links.Remove(link);
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

        NetlinkRequest request = NetlinkLinks.Change(link.Index, planned.NoArp ? Libc.IFF_NOARP : 0u, Libc.IFF_NOARP).Add(Libc.IFLA_MTU, planned.Mtu);
        if (!planned.Mac.Span.SequenceEqual(link.Mac))
        {
            request.Add(Libc.IFLA_ADDRESS, planned.Mac.Span);
        }

        _socket.Execute(request, "set address, MTU and flags of", planned.Name);
        _socket.MakeNoLinkLocalAddress(link.Index);
        SetFlags(link.Index, planned.Up ? (uint)Libc.IFF_UP : 0u, Libc.IFF_UP, planned.Name);
        Each(planned.Addresses, a => _socket.Execute(
            NetworkMessages.Address(Libc.RTM_NEWADDR, Make | Libc.NLM_F_REPLACE, link.Index, a),
            "add address",
            $"{NetworkMessages.Text(a.Local)}/{a.PrefixLength} to {planned.Name}"));
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
            NetlinkLinks.Change(link.Index).Add(Libc.IFLA_IFNAME, name), "rename", $"{link.Name} to {name}");
        _links[_links.IndexOf(link)] = link with { Name = name };
    }

    private void SetFlags(int index, uint flags, uint change, string name) => _socket.Execute(
        NetlinkLinks.Change(index, flags, change), (flags & Libc.IFF_UP) != 0 ? "bring up" : "bring down", name);

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

    private void IndexLinks() => _indexes = _links.ToDictionary(l => l.Name, l => l.Index);

    private int IndexOf(string name, string what) => _indexes.TryGetValue(name, out int index)
        ? index
        : throw new LinuxException(Errno.ENODEV, what, $"by {name}: there is no such interface in the guest");

    private void Each<T>(IEnumerable<T> items, Action<T> action)
    {
        foreach (T item in items)
        {
            try
            {
                action(item);
            }
            catch (LinuxException e)
            {
                Log.Warn(e.Message);
                _failure ??= e;
            }
        }
    }

    // What the container took away itself, or what went with something else, is gone already.
    private void Remove(NetworkPlan removed)
    {
        IndexLinks();
        Each(removed.Neighbours, n => Delete(() => NetworkMessages.Neighbour(Libc.RTM_DELNEIGH, Change, IndexOf(n.Interface, ""), n), "remove neighbour"));
        Each(removed.Rules, r => Delete(() => NetworkMessages.Rule(Libc.RTM_DELRULE, Change, r), "remove rule"));
        Each(removed.Routes.OrderByDescending(Dependency), r => Delete(
            () => NetworkMessages.Route(Libc.RTM_DELROUTE, Change, r, i => IndexOf(i, "")), $"remove route {NetworkMessages.Describe(r)}"));
        foreach (NetworkInterface planned in removed.Interfaces)
        {
            if (Find(planned) is { } link)
            {
                Each(planned.Addresses, a => Delete(() => NetworkMessages.Address(Libc.RTM_DELADDR, Change, link.Index, a), "remove address"));
            }
        }
    }

    private void Delete(Func<NetlinkRequest> request, string what)
    {
        Errno errno;
        string? text = null;
        try
        {
            errno = _socket.TryExecute(request(), out text);
        }
        catch (LinuxException e) when (e.Errno == Errno.ENODEV)
        {
            return;
        }

        if (errno is not (Errno.OK or Errno.ESRCH or Errno.ENOENT or Errno.EADDRNOTAVAIL or Errno.ENODEV))
        {
            throw new LinuxException(errno, what, text);
        }
    }

    private void AddRoute(NetworkRoute route)
    {
        // IPv6 takes any route of the same metric for the one to be replaced, by whatever interface: those are only added.
        bool v6 = route.Family == Libc.AF_INET6;
        ushort flags = (ushort)(Make | (v6 ? Libc.NLM_F_APPEND : Libc.NLM_F_REPLACE));
        Errno errno = _socket.TryExecute(NetworkMessages.Route(Libc.RTM_NEWROUTE, flags, route, i => IndexOf(i, "route")), out string? text);
        if (errno != Errno.OK && !(v6 && errno == Errno.EEXIST))
        {
            throw new LinuxException(errno, "add route", $"{NetworkMessages.Describe(route)} {text}".TrimEnd());
        }
    }

    private void AddRule(NetworkRule rule)
    {
        Errno errno = _socket.TryExecute(NetworkMessages.Rule(Libc.RTM_NEWRULE, Make | Libc.NLM_F_EXCL, rule), out string? text);
        if (errno is not (Errno.OK or Errno.EEXIST))
        {
            throw new LinuxException(errno, "add rule", $"of priority {rule.Priority} {text}");
        }
    }
}
