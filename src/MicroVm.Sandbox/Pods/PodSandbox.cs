using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Tracing;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Network;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Templates;
using MicroVm.Sandbox.Vm;
using MicroVm.Ttrpc;
using HostSocket = MicroVm.Sandbox.Vm.HostSocket;

namespace MicroVm.Sandbox.Pods;

/// <summary>
/// One VM and what its containers share: VMM, agent, network. The first container boots it; others may enter until the last has left.
/// Any thread.
/// </summary>
internal sealed class PodSandbox : IDisposable
{
    // Ports of the vsock device that one container's host sockets may have; far more than it can have sockets.
    private const uint PortsOfContainer = 1 << 20;
    private readonly ContainerStore _store;
    private readonly Action<LogLevel, string> _log;
    private readonly Lock _vmLock = new();
    private readonly Lock _networkLock = new();
    private readonly object _membersLock = new();

    // Held from a member's leaving until it is out of the VM, or the VM is ended: the VMM must not go while another is being taken out.
    private readonly Lock _endsLock = new();
    private readonly List<SandboxContainer> _members = [];
    private Vmm? _vmm;
    private Guest? _guest;
    private NetworkWatch? _watch;
    private bool _watching;
    private bool _killed;
    private bool _closed;
    private uint _ports;

    /// <summary>A VM that is not started yet.</summary>
    /// <param name="store">Has the VM's folder.</param>
    /// <param name="folder">Name of that folder, which no other VM has.</param>
    /// <param name="network">Its network; owned from now on.</param>
    /// <param name="size">Its memory and vCPUs.</param>
    /// <param name="log">Takes what concerns the VM as a whole.</param>
    internal PodSandbox(ContainerStore store, string folder, VmNetwork network, PodSize size, Action<LogLevel, string> log) =>
        (_store, Folder, Vsock, Network, Size, _log) = (store, folder, store.VsockOf(folder), network, size, log);

    /// <summary>Name of the VM's folder (<see cref="ContainerState.VmFolder"/>).</summary>
    internal string Folder { get; }

    /// <summary>Path of the VMM's vsock socket.</summary>
    internal string Vsock { get; }

    /// <summary>The network of all containers.</summary>
    internal VmNetwork Network { get; }

    /// <summary>Its memory and vCPUs.</summary>
    internal PodSize Size { get; }

    /// <summary>The VMM; only once it is started.</summary>
    internal Vmm Vmm => _vmm ?? throw new SandboxException("the VM has ended");

    /// <summary>The agent; only once it is connected.</summary>
    internal Guest Guest => _guest ?? throw new InvalidOperationException("the agent is not connected");

    /// <summary>The container in whose cgroup the VMM is; null where it is in none.</summary>
    internal SandboxContainer? Home { get; set; }

    /// <summary>The steps of the VM's start, as this process sees it.</summary>
    internal StepRecorder Trace { get; init; } = StepRecorder.Off;

    /// <summary>Moves what is in a container's cgroup beside the VMM to that of another.</summary>
    internal required Action<HostCgroup> MoveAlong { get; init; }

    /// <summary>Makes the VM's folder.</summary>
    /// <exception cref="LinuxException">It cannot be made.</exception>
    internal void MakeFolder() => _store.MakeVmFolder(Folder);

    /// <summary>Starts the VMM.</summary>
    /// <param name="start">Starts it.</param>
    /// <exception cref="SandboxException">It cannot be started, or was ended meanwhile.</exception>
    internal Vmm StartVm(Func<Vmm> start)
    {
        Vmm vmm = start();
        Network.Inherited();
        lock (_vmLock)
        {
            _vmm = vmm;
            if (_killed)
            {
                throw new SandboxException("interrupted");
            }
        }

        return vmm;
    }

    /// <summary>Connects to the agent once it is ready.</summary>
    /// <param name="ready">Where it says so.</param>
    /// <param name="fromTemplate">The VM was started from a template: the agent is there, and the VM must become one of its own.</param>
    /// <param name="timeout">How long each of it may take.</param>
    /// <exception cref="SandboxException">The VM ended, or the agent does not answer.</exception>
    internal void Connect(GuestReady ready, bool fromTemplate, TimeSpan timeout)
    {
        if (!fromTemplate)
        {
            using StepScope step = Trace.Begin("await the agent");
            ready.Wait(Vmm, timeout);
        }

        using (Trace.Begin("connect to the agent"))
        {
            _guest = Guest.Connect(Vmm, Vsock, timeout);
        }

        if (fromTemplate)
        {
            using StepScope step = Trace.Begin("give the guest its identity");
            GuestIdentity.Give(_guest);
        }
    }

    /// <summary>Has the agent set up the network as it was when the VM was started.</summary>
    /// <exception cref="SandboxException">Agent or VMM refused.</exception>
    internal void SetUpNetwork(NetworkView view) => Guest.Call("set up the network", agent =>
    {
        Network.SetUp(Vmm, agent, view);
        return 0;
    });

    /// <summary>Makes a container a member; false when the last has left already.</summary>
    internal bool Enter(SandboxContainer container)
    {
        lock (_membersLock)
        {
            if (_closed)
            {
                return false;
            }

            _members.Add(container);
            return true;
        }
    }

    /// <summary>Takes a member out of the VM. With the last one the VM ends, and nobody can enter any more.</summary>
    /// <param name="container">The member.</param>
    /// <param name="endVm">Ends the VM.</param>
    /// <param name="warn">Takes a line when the VM must stay in the member's cgroup.</param>
    /// <returns>It was the last.</returns>
    internal bool TakeOut(SandboxContainer container, Action endVm, Action<string> warn)
    {
        lock (_endsLock)
        {
            if (Leave(container))
            {
                container.Stop();
                endVm();
                return true;
            }

            container.Remove();
            Size.TakeFrom(this, container.Record.State.Id, text => _log(LogLevel.Debug, text));
            LeaveHome(container, warn);
            return false;
        }
    }

    private bool Leave(SandboxContainer container)
    {
        lock (_membersLock)
        {
            _ = _members.Remove(container);
            _closed |= _members.Count == 0;
            return _closed;
        }
    }

    /// <summary>Moves the VMM to another member's cgroup, when it is in that of one that has left.</summary>
    private void LeaveHome(SandboxContainer container, Action<string> warn)
    {
        lock (_membersLock)
        {
            if (Home != container || _members.Find(m => m != container) is not { } next)
            {
                return;
            }

            Home = next;
            try
            {
                HostLimits.ApplyToVm(next.Cgroup, Size.MemoryMiB);
                next.Cgroup.Move(Vmm.Process.Pid);
                MoveAlong(next.Cgroup);
                GiveWeight(next.Cgroup);
            }
            catch (SandboxException e)
            {
                warn($"the VM stays in the cgroup of container {container.Record.State.Id}: {e.Message}");
            }
        }
    }

    /// <summary>Another container has come: what bounds one container's CPU time must not bound the VM any more. The guest bounds each.</summary>
    internal void Share()
    {
        lock (_membersLock)
        {
            if (Home is { } home)
            {
                HostLimits.LiftBandwidth(home.Cgroup);
                GiveWeight(home.Cgroup);
            }
        }
    }

    /// <summary>Whether VMM and this process are in a cgroup of which the limits of one container are all there is to obey.</summary>
    internal bool IsShared
    {
        get
        {
            lock (_membersLock)
            {
                return _members.Count > 1;
            }
        }
    }

    /// <summary>The limits of all containers but one.</summary>
    internal List<Resources?> Others(string id)
    {
        lock (_membersLock)
        {
            return [.. _members.Where(m => m.Record.State.Id != id).Select(m => m.Configuration.Spec.Linux?.Resources)];
        }
    }

    /// <summary>Raises the limit of the cgroup that the VMM is in, before the VM grows to so much memory.</summary>
    internal void MakeRoom(int vmMemoryMiB)
    {
        lock (_membersLock)
        {
            if (Home is { } home)
            {
                HostLimits.Grow(home.Cgroup, home.Configuration.Spec.Linux?.Resources, vmMemoryMiB);
            }
        }
    }

    /// <summary>The first port of a range for one container's host sockets.</summary>
    internal uint TakePorts() => HostSocket.FirstPort + (Interlocked.Increment(ref _ports) * PortsOfContainer) - PortsOfContainer;

    /// <summary>Brings the guest's network to what the namespace is now, before a container is started: some callers add interfaces after its creation.</summary>
    internal void RefreshNetwork(AgentClient agent)
    {
        lock (_networkLock)
        {
            if (!_watching)
            {
                WatchNetwork(agent);
            }

            Network.Refresh(Vmm, agent);
            RelayNames(agent);
        }
    }

    /// <summary>Follows changes of the network from now on.</summary>
    internal void FollowNetwork()
    {
        lock (_networkLock)
        {
            if (!_watching)
            {
                _watching = true;
                _watch?.Begin();
            }
        }
    }

    /// <summary>Without its VM, whatever is being waited for fails at once.</summary>
    internal void Kill()
    {
        lock (_vmLock)
        {
            _killed = true;
            _vmm?.Process.Signal(Libc.SIGKILL);
        }
    }

    /// <summary>Ends the VM, and waits until it has.</summary>
    internal void EndVm()
    {
        lock (_vmLock)
        {
            _vmm?.Dispose();
            _vmm = null;
        }
    }

    /// <summary>Ends the VM, removes its folder, and undoes what was done to the network namespace's interfaces.</summary>
    public void Dispose()
    {
        using StepScope step = Trace.Begin("end the VM");
        _watch?.Dispose();
        _guest?.Dispose();
        EndVm();
        Network.Dispose();
        try
        {
            _store.RemoveVmFolder(Folder);
        }
        catch (SandboxException e)
        {
            _log(LogLevel.Warning, e.Message);
        }
    }

    /// <summary>The VM runs for all: of the host's CPU time it gets the members' shares together.</summary>
    private void GiveWeight(HostCgroup home)
    {
        try
        {
            HostLimits.SetShares(home, _members.Select(m => m.Configuration.Spec.Linux?.Resources?.Cpu?.Shares));
        }
        catch (SandboxException e)
        {
            _log(LogLevel.Warning, e.Message);
        }
    }

    /// <summary>Hears of changes from now on. A container whose network is not followed is better than none.</summary>
    private void WatchNetwork(AgentClient agent)
    {
        void Warn(string text) => _log(LogLevel.Warning, text);
        try
        {
            _watch?.Dispose();
            _watch = Network.Watch(Vmm, agent, Vsock, Warn);
        }
        catch (LinuxException e)
        {
            Warn($"changes of the container's network are not followed: {e.Message}");
        }
    }

    /// <summary>Names that an engine answers on the namespace's loopback interface. A container without them is better than none.</summary>
    private void RelayNames(AgentClient agent)
    {
        try
        {
            Network.FollowResolvers(Vsock, agent);
        }
        catch (Exception e) when (e is LinuxException or TtrpcException)
        {
            _log(LogLevel.Warning, $"names that are answered on the network namespace's loopback interface are not answered in the container: {e.Message}");
        }
    }
}
