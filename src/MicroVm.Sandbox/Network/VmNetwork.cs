using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Vm;
using MicroVm.Ttrpc;
using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Network;

/// <summary>
/// A container's network, from its namespace on the host to the guest's interfaces. Owned by the process that stands for the
/// container; what it did to the namespace's interfaces is undone when it is disposed.
/// </summary>
internal sealed class VmNetwork : IDisposable
{
    /// <summary>
    /// Windows that the guest boots with and that are free: some callers add interfaces between create and start. One costs a
    /// guest three register reads.
    /// </summary>
    internal const int FreeWindows = 2;

    // More windows than that are not left beside the VM's other devices.
    private const int MaxInterfaces = 8;

    // Each is a thread of the VMM, and in the guest a set of buffers.
    private const int MaxQueuePairs = 4;

    // After this many failed updates the oldest unconfirmed view is dropped.
    private const int MaxDoubts = 16;
    private static readonly TimeSpan ResolverTimeout = TimeSpan.FromSeconds(60);
    private readonly ContainerNetwork _network;
    private readonly NetworkLimits _limits;
    private readonly int _queuePairs;
    private readonly Lock _lock = new();
    private readonly List<NetworkView> _told = [NetworkView.Empty];
    private List<ConnectedLink> _waiting = [];
    private Window[] _windows = [];
    private long _toldAt;
    private NameRelay? _names;
    private LoopbackSockets? _localhost;
    private LoopbackRelay? _loopback;
    private bool _disposed;

    private VmNetwork(ContainerNetwork network, NetworkLimits limits, int queuePairs) => (_network, _limits, _queuePairs) = (network, limits, queuePairs);

    /// <summary>Path of the namespace that the bundle names; null for a new one.</summary>
    internal string? Path { get; private init; }

    /// <summary>Opens the container's network namespace and connects what is in it.</summary>
    /// <param name="spec">The container's.</param>
    /// <param name="vcpus">Of the VM: one queue pair for each, as far as that helps.</param>
    /// <param name="own">Path of a new namespace, for a container with one of its own; null: one is made.</param>
    /// <exception cref="SpecException">The bundle asks for the host's network.</exception>
    /// <exception cref="SandboxException">The namespace cannot be opened, or an interface cannot be connected.</exception>
    internal static VmNetwork Prepare(Spec spec, int vcpus, string? own = null)
    {
        Oci.Config.Namespace? ns = spec.Linux?.Namespaces?.Find(n => n?.Type == NamespaceTypes.Network)
            ?? throw SpecException.Unsupported(
                "the host's network (linux.namespaces without one of type network)",
                "a VM has a network of its own; use a bridge network with published ports, or none");
        ContainerNetwork network = string.IsNullOrEmpty(ns.Path) ? ContainerNetwork.New(own) : ContainerNetwork.Open(ns.Path);
        VmNetwork made = new(network, NetworkLimits.FromAnnotations(spec.Annotations), QueuePairs(vcpus))
        {
            Path = string.IsNullOrEmpty(ns.Path) ? null : ns.Path,
        };
        try
        {
            made._waiting = network.Connect(MaxInterfaces, made._queuePairs);
            return made;
        }
        catch
        {
            made.Dispose();
            throw;
        }
    }

    /// <summary>Queue pairs of each device: one for each vCPU, as far as that helps.</summary>
    internal static int QueuePairs(int vcpus) => Math.Clamp(vcpus, 1, MaxQueuePairs);

    /// <summary>How many interfaces the VM starts with.</summary>
    internal int Interfaces => _waiting.Count;

    /// <summary>The VMM's devices.</summary>
    /// <param name="add">Has the VMM inherit a descriptor.</param>
    /// <param name="windows">How many there are, with and without an interface; null for as many as a booted VM has.</param>
    internal IReadOnlyList<NetConfig> Configure(Func<SafeFd, int> add, int? windows = null)
    {
        int free = windows is { } all ? all - _waiting.Count : FreeWindows;
        List<NetConfig> configs = [.. _waiting.Select(l => new NetConfig { QueuePairs = _queuePairs, Interface = l.Attachment(l.Taps.Select(add), _limits) })];
        _windows = [.. _waiting.Select(l => new Window(l.Link, Carrier: false)), .. new Window[free]];
        for (int i = 0; i < free; i++)
        {
            configs.Add(new NetConfig { QueuePairs = _queuePairs });
        }

        return configs;
    }

    /// <summary>The VMM has its descriptors: ours are closed, so that the taps end with it.</summary>
    internal void Inherited()
    {
        _waiting.ForEach(l => l.Dispose());
        _waiting = [];
    }

    /// <summary>The namespace as it is now, as far as it is joined.</summary>
    /// <exception cref="SandboxException">The namespace cannot be read.</exception>
    internal NetworkView Read() => _network.Read();

    /// <summary>Has the agent set up what the VM was started with.</summary>
    /// <exception cref="SandboxException">The VMM refused.</exception>
    internal void SetUp(Vmm vmm, AgentClient agent, NetworkView view)
    {
        lock (_lock)
        {
            Tell(vmm.Control.Request, agent, view);
        }
    }

    /// <summary>Reads the namespace again: new interfaces get a device, removed ones lose theirs, and the changes are sent to the guest.</summary>
    /// <exception cref="SandboxException">There is no free window, or the VMM refused.</exception>
    internal void Refresh(Vmm vmm, AgentClient agent) => Follow(vmm.Control.Request, agent, new HashSet<int>(), null);

    /// <summary>
    /// Looks for an engine's resolver on the namespace's loopback interface (Docker's 127.0.0.11), and has the guest's names answered
    /// by it. Nothing is done where there is none, or for those that are relayed already.
    /// </summary>
    /// <param name="vsock">The VMM's socket.</param>
    /// <param name="agent">The guest's.</param>
    /// <exception cref="LinuxException">The namespace cannot be looked at, or the VMM is gone.</exception>
    /// <exception cref="TtrpcException">The agent refused.</exception>
    internal void FollowResolvers(string vsock, AgentClient agent)
    {
        lock (_lock)
        {
            if (_disposed || _network.FindResolvers() is not { Count: > 0 } addresses || _names?.Serves(addresses) == true)
            {
                return;
            }

            SafeFd stream = HybridVsock.Connect(vsock, AgentClient.StreamPort, ResolverTimeout, out uint port);
            try
            {
                NameRelayRequest request = new() { Stream = port };
                request.Addresses.AddRange(addresses);
                agent.RelayNames(request);
                _names?.Dispose();
                _names = _network.RelayNames(stream, addresses);
            }
            catch
            {
                stream.Dispose();
                throw;
            }
        }
    }

    /// <summary>
    /// Has what is connected to localhost in the namespace reach the guest's, once the network is followed (<see cref="Watch"/>): the first
    /// connection starts a <see cref="LoopbackRelay"/>. Done while this process may still load eBPF programs.
    /// </summary>
    /// <exception cref="LinuxException">The kernel cannot, or this process may not.</exception>
    internal void ListenOnLoopback() => _localhost = _network.ListenOnLoopback();

    /// <summary>
    /// How many frames the VMM dropped, by interface: what the guest sent and its interface does not know to be lost, and what
    /// had no room in its buffers.
    /// </summary>
    /// <exception cref="SandboxException">The VMM does not answer.</exception>
    internal IReadOnlyDictionary<string, (ulong Received, ulong Sent)> Dropped(Vmm vmm)
    {
        IReadOnlyDictionary<string, long> counters = vmm.Control.ReadCounters();
        Dictionary<string, (ulong Received, ulong Sent)> dropped = [];
        lock (_lock)
        {
            for (int i = 0; i < _windows.Length; i++)
            {
                if (_windows[i].Link is { } link)
                {
                    ulong sum(params string[] names) => names.Aggregate(0ul, (all, n) => all + (ulong)counters.GetValueOrDefault($"net{i}.{n}"));
                    dropped[link.Name] = (sum("rx.dropped.size"), sum("tx.dropped.header", "tx.dropped.size", "tx.dropped.source", "tx.errors"));
                }
            }
        }

        return dropped;
    }

    /// <summary>Makes what follows changes while the container runs; it is begun and disposed by the caller.</summary>
    /// <exception cref="LinuxException">The namespace cannot be listened to.</exception>
    internal NetworkWatch Watch(Vmm vmm, AgentClient agent, string vsock, Action<string> warn)
    {
        // What cannot be joined is met again at each change.
        HashSet<string> warned = [];
        void Once(string text)
        {
            if (warned.Add(text))
            {
                warn(text);
            }
        }

        return new NetworkWatch(
            _network.Monitor,
            removed =>
            {
                Follow(vmm.Control.Request, agent, removed, Once);
                FollowResolvers(vsock, agent);
            },
            _localhost?.Listeners ?? [],
            () => RelayLoopback(vsock, agent, warn),
            warn);
    }

    public void Dispose()
    {
        Inherited();
        lock (_lock)
        {
            if (!_disposed)
            {
                _disposed = true;
                _names?.Dispose();
                if (_loopback is null)
                {
                    _localhost?.Dispose();
                }

                _loopback?.Dispose();
                _network.Disconnect();
                _network.Dispose();
            }
        }
    }

    private void RelayLoopback(string vsock, AgentClient agent, Action<string> warn)
    {
        lock (_lock)
        {
            try
            {
                if (!_disposed && _localhost is not null)
                {
                    _loopback ??= _network.RelayLoopback(_localhost, vsock, agent);
                }
            }
            catch (LinuxException e)
            {
                warn($"connections to localhost of the network namespace do not reach the container: {e.Message}");
            }
        }
    }

    private void Follow(VmmRequest vmm, AgentClient agent, IReadOnlySet<int> removed, Action<string>? warn)
    {
        lock (_lock)
        {
            if (_disposed)
            {
                return;
            }

            NetworkView view = _network.Read();
            int[] gone = [.. Enumerable.Range(0, _windows.Length).Where(
                i => _windows[i].Link is { } l && (view.Find(l.Index) is null || removed.Contains(l.Index)))];
            if (gone.Length > 0)
            {
                Detach(vmm, agent, gone, warn);
            }

            if (gone.Length > 0 || view.HasMore)
            {
                foreach (ConnectedLink link in _network.Connect(_windows.Count(w => w.IsFree), _queuePairs, warn))
                {
                    using (link)
                    {
                        Attach(vmm, link);
                    }
                }

                view = _network.Read();
            }

            Tell(vmm, agent, view);
        }
    }

    private void Attach(VmmRequest vmm, ConnectedLink link)
    {
        int window = Array.FindIndex(_windows, w => w.IsFree);
        try
        {
            vmm(new ControlRequest { Operation = ControlOperation.AttachNet, Index = window, Interface = link.Attachment([], _limits) }, link.Taps);
        }
        catch
        {
            _network.Release(link.Link.Index);
            throw;
        }

        _windows[window] = new Window(link.Link, Carrier: false);
    }

    /// <summary>Takes the devices of interfaces that are gone away: first from the guest's driver, then from the VMM.</summary>
    private void Detach(VmmRequest vmm, AgentClient agent, int[] gone, Action<string>? warn)
    {
        NetworkPlan plan = new();
        plan.Interfaces.AddRange(gone.Select(i => new NetworkInterface
        {
            Name = _windows[i].Link!.Name,
            Mac = Google.Protobuf.ByteString.CopyFrom(_windows[i].Link!.Mac),
            Removed = true,
        }));
        agent.ConfigureNetwork(plan);
        foreach (int i in gone)
        {
            HostLink link = _windows[i].Link!;
            _windows[i] = default;
            try
            {
                vmm(new ControlRequest { Operation = ControlOperation.DetachNet, Index = i }, null);
            }
            catch (SandboxException e)
            {
                // Without a tap the device moves nothing; but nothing else can take its place.
                _windows[i] = new Window(null, Carrier: false, Lost: true);
                warn?.Invoke($"network interface {link.Name} is gone, but the guest keeps its device: {e.Message}");
            }

            _network.Release(link.Index);
        }
    }

    /// <summary>
    /// Tells VMM and guest what differs from what they know. A link comes up last: the guest's kernel tells of one at once that comes up
    /// while the interface is up already, and otherwise up to a second later.
    /// </summary>
    private void Tell(VmmRequest vmm, AgentClient agent, NetworkView view)
    {
        List<(int Window, HostLink Link)> risen = [];
        foreach (HostLink link in view.Links)
        {
            int i = Array.FindIndex(_windows, w => w.Link?.Index == link.Index);
            Window window = _windows[i];
            HostLink known = window.Link!;
            bool mac = !known.Mac.AsSpan().SequenceEqual(link.Mac), carrier = window.Carrier && link.HasCarrier;
            if (known.Mtu != link.Mtu)
            {
                _network.SetMtu(link);
            }

            if (mac || known.DeviceMtu != link.DeviceMtu || window.Carrier != carrier)
            {
                vmm(SetLink(i, link, carrier, mac), null);
            }

            _windows[i] = new Window(link, carrier);
            if (link.HasCarrier && !carrier)
            {
                risen.Add((i, link));
            }
        }

        try
        {
            TellGuest(agent, view, risen.Select(r => r.Link.Name));
        }
        finally
        {
            foreach ((int i, HostLink link) in risen)
            {
                vmm(SetLink(i, link, up: true, mac: false), null);
                _windows[i] = new Window(link, Carrier: true);
            }
        }
    }

    private static ControlRequest SetLink(int window, HostLink link, bool up, bool mac) =>
        new() { Operation = ControlOperation.SetNetLink, Index = window, Up = up, Mtu = link.DeviceMtu, Mac = mac ? link.MacText : null };

    private void TellGuest(AgentClient agent, NetworkView view, IEnumerable<string> links)
    {
        long now = Environment.TickCount64;
        if (NetworkDelta.Between(_told, view, (now - _toldAt) / 1000) is not { } delta)
        {
            return;
        }

        // Should the call fail, the guest has some of it.
        if (_told.Count < MaxDoubts)
        {
            _told.Add(view);
        }

        delta.Links.AddRange(links);
        agent.ConfigureNetwork(delta);
        _told.Clear();
        _told.Add(view);
        _toldAt = now;
    }

    private delegate ControlResponse VmmRequest(ControlRequest request, IReadOnlyList<SafeFd>? fds);

    /// <summary>A virtio-net window and what the VMM knows of the interface behind it.</summary>
    private readonly record struct Window(HostLink? Link, bool Carrier, bool Lost = false)
    {
        internal bool IsFree => Link is null && !Lost;
    }
}
