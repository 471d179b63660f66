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
    /// <summary>What the VMM is told; the descriptors are named by who hands them over.</summary>
    internal NetAttachment Attachment(IEnumerable<int> fds, NetworkLimits limits) => new()
    {
        Mac = string.Join(':', Link.Mac.Select(b => b.ToString("x2", CultureInfo.InvariantCulture))),
        Mtu = Link.Mtu is >= 68 and <= ushort.MaxValue ? (int)Link.Mtu : 0,
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
    private const string TapPrefix = "mvtap";
    private readonly NetworkNamespace _namespace;
    private readonly HashSet<int> _connected = [];

    private ContainerNetwork(NetworkNamespace ns) => _namespace = ns;

    /// <summary>The container's namespace: the one at <paramref name="path"/>, or a new one.</summary>
    /// <exception cref="SandboxException">There is none.</exception>
    internal static ContainerNetwork Open(string? path)
    {
        NetworkNamespace ns;
        try
        {
            ns = string.IsNullOrEmpty(path) ? Create() : NetworkNamespace.Open(path);
        }
        catch (LinuxException e)
        {
            throw new SandboxException(e.Message, e);
        }

        // Its interfaces would be taken from the host and from everybody on it.
        if (ns.IsCurrent())
        {
            ns.Dispose();
            throw new SandboxException($"network namespace {path} is the host's own; a VM has a network of its own: use a bridge network with published ports, or none");
        }

        return new ContainerNetwork(ns);
    }

    /// <summary>A namespace that is open already; taken over.</summary>
    internal static ContainerNetwork Of(NetworkNamespace ns) => new(ns);

    /// <summary>Moves the calling thread into the namespace, for good: who stands for the container is seen in its network.</summary>
    internal void Enter() => _namespace.Enter();

    /// <summary>Connects the interfaces that are not connected yet.</summary>
    /// <param name="most">How many more the VM has room for.</param>
    /// <param name="queues">Queue pairs of each.</param>
    /// <exception cref="SandboxException">There are more, or one cannot be connected.</exception>
    internal List<ConnectedLink> Connect(int most, int queues = 1) => Wrap(socket =>
    {
        List<HostLink> fresh = [.. NamespaceReader.ReadLinks(socket).Where(l => !_connected.Contains(l.Index))];
        if (fresh.Count > most)
        {
            throw new SandboxException($"the network namespace has {fresh.Count} interfaces more, the VM has room for {most}");
        }

        List<ConnectedLink> connected = [];
        try
        {
            foreach (HostLink link in fresh)
            {
                connected.Add(Connect(socket, link, queues));
                _connected.Add(link.Index);
            }

            return connected;
        }
        catch
        {
            connected.ForEach(c => c.Dispose());
            throw;
        }
    });

    /// <summary>What the guest's agent is to set up, as the namespace is now.</summary>
    /// <exception cref="SandboxException">The namespace cannot be read.</exception>
    internal NetworkPlan ReadPlan() => Wrap(socket =>
        NamespaceReader.Read(socket, [.. NamespaceReader.ReadLinks(socket).Where(l => _connected.Contains(l.Index))]));

    /// <summary>Undoes what <see cref="Connect(int, int)"/> did to the interfaces; the taps end with their descriptors.</summary>
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
            HashSet<string> taps = [.. network._namespace.Run(ReadNames).Select(l => l.Name)];
            network.Remove(index => !taps.Contains(TapName(index)));
        }
        catch (LinuxException)
        {
            // It is gone, and with it everything that was in it.
        }
    }

    public void Dispose() => _namespace.Dispose();

    private static ConnectedLink Connect(NetlinkSocket socket, HostLink link, int queues)
    {
        string name = TapName(link.Index);
        SafeFd[] taps;
        try
        {
            (_, taps) = TapInterface.Create(name, queues);
        }
        catch (LinuxException e) when (e.Errno == Errno.EBUSY)
        {
            throw new SandboxException($"network interface {link.Name} is used by another VM already", e);
        }

        try
        {
            int tap = ReadNames(socket).Find(l => l.Name == name).Index;

            // The tap is a wire's end and no more: no address of its own, and no packets of the namespace's kernel.
            socket.Execute(
                new NetlinkRequest(Libc.RTM_NEWLINK, Libc.NLM_F_ACK)
                    .Append(new Libc.ifinfomsg { ifi_index = tap, ifi_flags = Libc.IFF_NOARP, ifi_change = Libc.IFF_NOARP })
                    .Add(Libc.IFLA_MTU, link.Mtu),
                "set MTU of",
                name);
            _ = socket.TryExecute(
                new NetlinkRequest(Libc.RTM_NEWLINK, Libc.NLM_F_ACK)
                    .Append(new Libc.ifinfomsg { ifi_index = tap })
                    .Nest(Libc.IFLA_AF_SPEC, s => s.Nest((ushort)Libc.AF_INET6, v6 => v6.Add(Libc.IFLA_INET6_ADDR_GEN_MODE, [Libc.IN6_ADDR_GEN_MODE_NONE]))),
                out _);
            socket.Execute(
                new NetlinkRequest(Libc.RTM_NEWLINK, Libc.NLM_F_ACK)
                    .Append(new Libc.ifinfomsg { ifi_index = tap, ifi_flags = Libc.IFF_UP, ifi_change = Libc.IFF_UP }),
                "bring up",
                name);
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

    // As runc does in a namespace that it makes: its loopback interface is up. It is the first of its interfaces.
    private static NetworkNamespace Create()
    {
        NetworkNamespace ns = NetworkNamespace.Create();
        _ = ns.Run(socket => socket.TryExecute(
            new NetlinkRequest(Libc.RTM_NEWLINK, Libc.NLM_F_ACK).Append(new Libc.ifinfomsg { ifi_index = 1, ifi_flags = Libc.IFF_UP, ifi_change = Libc.IFF_UP }), out _));
        return ns;
    }

    private static string TapName(int link) => string.Create(CultureInfo.InvariantCulture, $"{TapPrefix}{link}");

    private static List<(int Index, string Name)> ReadNames(NetlinkSocket socket)
    {
        List<(int Index, string Name)> names = [];
        socket.Dump(new NetlinkRequest(Libc.RTM_GETLINK, Libc.NLM_F_DUMP).Append(default(Libc.ifinfomsg)), "dump of the interfaces", (type, payload) =>
        {
            if (System.Runtime.InteropServices.MemoryMarshal.TryRead(payload, out Libc.ifinfomsg body))
            {
                names.Add((body.ifi_index, new NetlinkAttributes(payload[16..]).Text(Libc.IFLA_IFNAME)));
            }
        });
        return names;
    }

    private void Remove(Predicate<int> which)
    {
        try
        {
            _ = _namespace.Run(socket =>
            {
                NamespaceReader.ReadLinks(socket).FindAll(l => which(l.Index)).ForEach(l => TrafficRedirect.Remove(socket, l.Index));
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
            return _namespace.Run(action);
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"network: {e.Message}", e);
        }
    }
}
