using System.Globalization;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Netlink;
using MicroVm.Protocol.Agent;
using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Network;

/// <summary>An interface of the container's namespace with its tap beside it, before the VMM has it.</summary>
/// <param name="Link">The interface.</param>
/// <param name="Taps">The tap's descriptors, owned.</param>
internal sealed record ConnectedLink(HostLink Link, SafeFd[] Taps) : IDisposable
{
    /// <summary>The configuration for the VMM; whoever hands descriptors over numbers them.</summary>
    internal NetAttachment Attachment(IEnumerable<int> fds, NetworkLimits limits) => new()
    {
        Mac = Link.MacText,
        Mtu = Link.DeviceMtu,
        MtuMayChange = true,

        // The guest's kernel tells of a link at once only when it comes up while the interface is: VmNetwork sees to it.
        LinkDown = true,
        Taps = [.. fds.Select(FileReference.FromFd)],
        Receive = limits.Receive,
        Transmit = limits.Transmit,
    };

    public void Dispose() => Array.ForEach(Taps, t => t.Dispose());
}

/// <summary>
/// The container's network namespace on the host, whose interfaces are joined to the VM: each gets a tap beside it, and what
/// arrives at one leaves by the other. The interfaces keep their addresses, for who looks at them from the host; nothing
/// reaches the host's stack any more, so the guest alone answers.
/// </summary>
internal sealed class ContainerNetwork : IDisposable
{
    /// <summary>Begins the names of the taps that are made in a container's namespace.</summary>
    internal const string TapPrefix = "mvtap";
    private readonly NetworkNamespace _namespace;
    private readonly HashSet<int> _connected = [];

    private ContainerNetwork(NetworkNamespace ns) => _namespace = ns;

    /// <summary>The namespace at <paramref name="path"/>, which a caller made for the container.</summary>
    /// <exception cref="SandboxException">There is none, or it is the host's own.</exception>
    internal static ContainerNetwork Open(string path)
    {
        NetworkNamespace ns = OpenNamespace(path);

        // Its interfaces would be taken from the host and from everybody on it.
        if (ns.IsCurrent())
        {
            ns.Dispose();
            throw new SandboxException($"network namespace {path} is the host's own; a VM has a network of its own: use a bridge network with published ports, or none");
        }

        return new ContainerNetwork(ns);
    }

    /// <summary>A new namespace. As runc does in one that it makes: its loopback interface is up.</summary>
    /// <param name="path">Where it is, when it was made already.</param>
    /// <exception cref="SandboxException">There is none at <paramref name="path"/>, or none can be made.</exception>
    internal static ContainerNetwork New(string? path)
    {
        NetworkNamespace ns = OpenNamespace(path);

        // The first of its interfaces.
        _ = ns.Netlink(socket => socket.TryExecute(NetlinkLinks.Change(1, Libc.IFF_UP, Libc.IFF_UP), out _));
        return new ContainerNetwork(ns);
    }

    /// <summary>A namespace that is open already; taken over.</summary>
    internal static ContainerNetwork Of(NetworkNamespace ns) => new(ns);

    /// <summary>Connects the interfaces that are not connected yet.</summary>
    /// <param name="most">How many more the VM has room for.</param>
    /// <param name="queues">Queue pairs of each.</param>
    /// <param name="skip">Is told why an interface cannot be connected, which is then left out; null when that is an error.</param>
    /// <exception cref="SandboxException">There are more, or one cannot be connected.</exception>
    internal List<ConnectedLink> Connect(int most, int queues = 1, Action<string>? skip = null) => Wrap(socket =>
    {
        List<HostLink> unsuitable = [];
        List<HostLink> fresh = [.. NamespaceReader.ReadLinks(socket, null, unsuitable).Where(l => !_connected.Contains(l.Index))];
        foreach (HostLink link in unsuitable)
        {
            string problem = $"network interface {link.Name} ({(link.Kind.Length > 0 ? link.Kind : "hardware")}) is not Ethernet: a VM cannot be connected to it; "
                + "give the container a veth, macvlan or tap interface, or none";
            (skip ?? throw new SandboxException(problem)).Invoke(problem);
        }

        List<ConnectedLink> connected = [];
        try
        {
            if (fresh.Count > most)
            {
                string problem = $"the network namespace has {fresh.Count} interfaces more, the VM has room for {most}";
                (skip ?? throw new SandboxException(problem)).Invoke(problem);
                fresh.RemoveRange(most, fresh.Count - most);
            }

            foreach (HostLink link in fresh)
            {
                try
                {
                    connected.Add(Connect(socket, link, queues));
                    _connected.Add(link.Index);
                }
                catch (Exception e) when (skip is not null && e is SandboxException or LinuxException)
                {
                    skip(e.Message);
                }
            }

            return connected;
        }
        catch
        {
            connected.ForEach(c => Abandon(socket, c));
            throw;
        }
    });

    /// <summary>The namespace as it is now, as far as it is joined.</summary>
    /// <exception cref="SandboxException">The namespace cannot be read.</exception>
    internal NetworkView Read() => Wrap(socket =>
    {
        List<HostLink> all = NamespaceReader.ReadLinks(socket, _connected);
        List<HostLink> links = all.FindAll(l => _connected.Contains(l.Index));
        return new NetworkView(links, NamespaceReader.Read(socket, links)) { HasMore = links.Count < all.Count };
    });

    /// <summary>Opens what hears of changes in the namespace.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    internal NetlinkMonitor Monitor() => _namespace.Run(() => new NetlinkMonitor());

    /// <summary>Loopback addresses of the namespace where an engine's resolver listens.</summary>
    /// <exception cref="LinuxException">The namespace cannot be looked at.</exception>
    internal IReadOnlyList<uint> FindResolvers() => LoopbackResolvers.Find(_namespace);

    /// <summary>Answers the guest's questions for names in the namespace.</summary>
    /// <exception cref="LinuxException">No descriptor is free.</exception>
    internal NameRelay RelayNames(SafeFd stream, IReadOnlyList<uint> addresses) => new(_namespace, stream, addresses);

    /// <summary>Sockets that get what is connected to localhost in the namespace.</summary>
    /// <exception cref="LinuxException">The kernel cannot, or this process may not.</exception>
    internal LoopbackSockets ListenOnLoopback() => LoopbackSockets.Open(_namespace);

    /// <summary>Carries connections from there to the guest.</summary>
    /// <exception cref="LinuxException">No descriptor is free.</exception>
    internal LoopbackRelay RelayLoopback(LoopbackSockets sockets, string vsock, AgentClient agent) => new(_namespace, sockets, vsock, agent);

    /// <summary>Gives a joined interface's tap another MTU.</summary>
    /// <exception cref="SandboxException">The kernel refused.</exception>
    internal void SetMtu(HostLink link) => Wrap(socket =>
    {
        string name = TapName(link.Index);
        socket.Execute(
            NetlinkLinks.Change(ReadNames(socket).Find(l => l.Name == name).Index).Add(Libc.IFLA_MTU, link.Mtu), "set MTU of", name);
        return 0;
    });

    /// <summary>
    /// Forgets an interface that is gone, or that the VM did not take: the redirect ends, and the tap, whoever still holds it.
    /// </summary>
    internal void Release(int link) => Wrap(socket =>
    {
        TrafficRedirect.Remove(socket, link);
        string name = TapName(link);
        if (ReadNames(socket).Find(l => l.Name == name) is { Name: not null } tap)
        {
            _ = socket.TryExecute(new NetlinkRequest(Libc.RTM_DELLINK, Libc.NLM_F_ACK).Append(new Libc.ifinfomsg { ifi_index = tap.Index }), out _);
        }

        return _connected.Remove(link);
    });

    /// <summary>Undoes what <see cref="Connect(int, int, Action{string})"/> did to the interfaces; the taps end with their descriptors.</summary>
    internal void Disconnect() => Remove(_connected.Contains);

    /// <summary>
    /// Undoes what a run that crashed left in the namespace at <paramref name="path"/>: redirects to taps that are gone. Where
    /// the tap is there, another VM uses the interface.
    /// </summary>
    internal static void CleanUp(string path)
    {
        try
        {
            using ContainerNetwork network = new(NetworkNamespace.Open(path));
            HashSet<string> taps = [.. network._namespace.Netlink(ReadNames).Select(l => l.Name)];
            network.Remove(index => !taps.Contains(TapName(index)));
        }
        catch (LinuxException)
        {
            // It is gone, and with it everything that was in it.
        }
    }

    public void Dispose() => _namespace.Dispose();

    private ConnectedLink Connect(NetlinkSocket socket, HostLink link, int queues)
    {
        string name = TapName(link.Index);
        SafeFd[] taps;
        try
        {
            (_, taps) = _namespace.Run(() => TapInterface.Create(name, queues));
        }
        catch (LinuxException e) when (e.Errno == Errno.EBUSY)
        {
            throw new SandboxException(
                $"the network namespace is another container's already (its VM has interface {link.Name}): two VMs cannot share a namespace, as in pods "
                + "or with --network container:NAME; give each container a network of its own, for example on one bridge, or none",
                e);
        }

        try
        {
            int tap = ReadNames(socket).Find(l => l.Name == name).Index;

            // The tap is a wire's end and no more: no address of its own, and no packets of the namespace's kernel.
            socket.Execute(
                NetlinkLinks.Change(tap, Libc.IFF_NOARP, Libc.IFF_NOARP).Add(Libc.IFLA_MTU, link.Mtu), "set MTU of", name);
            socket.MakeNoLinkLocalAddress(tap);
            socket.Execute(NetlinkLinks.Change(tap, Libc.IFF_UP, Libc.IFF_UP), "bring up", name);
            TrafficRedirect.Add(socket, tap, link.Index, name);
            TrafficRedirect.Add(socket, link.Index, tap, link.Name);
            return new ConnectedLink(link, taps);
        }
        catch
        {
            TrafficRedirect.Remove(socket, link.Index);
            Array.ForEach(taps, t => t.Dispose());
            throw;
        }
    }

    private static NetworkNamespace OpenNamespace(string? path)
    {
        try
        {
            return path is null ? NetworkNamespace.Create() : NetworkNamespace.Open(path);
        }
        catch (LinuxException e)
        {
            throw new SandboxException(e.Message, e);
        }
    }

    private void Abandon(NetlinkSocket socket, ConnectedLink link)
    {
        TrafficRedirect.Remove(socket, link.Link.Index);
        _connected.Remove(link.Link.Index);
        link.Dispose();
    }

    private static string TapName(int link) => string.Create(CultureInfo.InvariantCulture, $"{TapPrefix}{link}");

    private static List<(int Index, string Name)> ReadNames(NetlinkSocket socket)
    {
        List<(int Index, string Name)> names = [];
        socket.DumpLinks((in Libc.ifinfomsg link, NetlinkAttributes attributes) => names.Add((link.ifi_index, attributes.Text(Libc.IFLA_IFNAME))));
        return names;
    }

    private void Remove(Predicate<int> which)
    {
        try
        {
            _ = _namespace.Netlink(socket =>
            {
                // Whatever became of them since: one may be a bridge's port by now.
                ReadNames(socket).FindAll(l => !l.Name.StartsWith(TapPrefix, StringComparison.Ordinal) && which(l.Index))
                    .ForEach(l => TrafficRedirect.Remove(socket, l.Index));
                return 0;
            });
        }
        catch (LinuxException)
        {
            // What cannot be entered any more has nothing left to undo.
        }
    }

    private T Wrap<T>(Func<NetlinkSocket, T> action)
    {
        try
        {
            return _namespace.Netlink(action);
        }
        catch (IOException e)
        {
            throw new SandboxException($"network: {e.Message}", e);
        }
    }
}
