using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Vm;
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
    private const int FreeWindows = 2;

    // More windows than that are not left beside the VM's other devices.
    private const int MaxInterfaces = 8;
    private readonly ContainerNetwork _network;
    private readonly NetworkLimits _limits;
    private List<ConnectedLink> _waiting = [];
    private NetworkPlan? _applied;
    private bool _disposed;
    private int _used;
    private int _windows;

    private VmNetwork(ContainerNetwork network, NetworkLimits limits) => (_network, _limits) = (network, limits);

    /// <summary>Path of the namespace that the bundle names; null for a new one.</summary>
    internal string? Path { get; private init; }

    /// <summary>Opens the container's network namespace and connects what is in it.</summary>
    /// <exception cref="SpecException">The bundle asks for the host's network.</exception>
    /// <exception cref="SandboxException">The namespace cannot be opened, or an interface cannot be connected.</exception>
    internal static VmNetwork Prepare(Spec spec)
    {
        Oci.Config.Namespace? ns = spec.Linux?.Namespaces?.Find(n => n?.Type == NamespaceTypes.Network)
            ?? throw SpecException.Unsupported(
                "the host's network (linux.namespaces without one of type network)",
                "a VM has a network of its own; use a bridge network with published ports, or none");
        ContainerNetwork network = ContainerNetwork.Open(ns.Path);
        VmNetwork made = new(network, NetworkLimits.FromAnnotations(spec.Annotations)) { Path = string.IsNullOrEmpty(ns.Path) ? null : ns.Path };
        try
        {
            made._waiting = network.Connect(MaxInterfaces);
            return made;
        }
        catch
        {
            made.Dispose();
            throw;
        }
    }

    /// <summary>Moves the calling thread into the namespace, for good: callers look at the network of who stands for the container.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    internal void Enter() => _network.Enter();

    /// <summary>The VMM's devices. <paramref name="add"/> has it inherit a descriptor.</summary>
    internal IReadOnlyList<NetConfig> Configure(Func<SafeFd, int> add)
    {
        List<NetConfig> configs = [.. _waiting.Select(l => new NetConfig { Interface = l.Attachment(l.Taps.Select(add), _limits) })];
        _used = configs.Count;
        for (int i = 0; i < FreeWindows; i++)
        {
            configs.Add(new NetConfig());
        }

        _windows = configs.Count;
        return configs;
    }

    /// <summary>The VMM has its descriptors: ours are closed, so that the taps end with it.</summary>
    internal void Inherited()
    {
        _waiting.ForEach(l => l.Dispose());
        _waiting = [];
    }

    /// <summary>What the agent is to set up, as the namespace is now.</summary>
    /// <exception cref="SandboxException">The namespace cannot be read.</exception>
    internal NetworkPlan ReadPlan() => _network.ReadPlan();

    /// <summary>Has the agent set up a plan.</summary>
    internal void SetUp(AgentClient agent, NetworkPlan plan)
    {
        // Each of the guest's calls costs, where its kernel is emulated: what has not changed is not sent again.
        if (!plan.Equals(_applied))
        {
            agent.ConfigureNetwork(plan);
            _applied = plan;
        }
    }

    /// <summary>Looks again: interfaces that are new get a device, and the guest what changed.</summary>
    /// <exception cref="SandboxException">There is no free window, or the VMM refused.</exception>
    internal void Refresh(Vmm vmm, AgentClient agent)
    {
        foreach (ConnectedLink link in _network.Connect(_windows - _used))
        {
            using (link)
            {
                vmm.Control.Request(
                    new ControlRequest { Operation = ControlOperation.AttachNet, Index = _used, Interface = link.Attachment([], _limits) }, link.Taps);
            }

            _used++;
        }

        SetUp(agent, ReadPlan());
    }

    public void Dispose()
    {
        Inherited();
        if (!_disposed)
        {
            _disposed = true;
            _network.Disconnect();
            _network.Dispose();
        }
    }
}
