using MicroVm.Linux;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;
using MicroVm.Ttrpc;
using MicroVm.VmmControl;
using HostSocket = MicroVm.Sandbox.Vm.HostSocket;
using Mount = MicroVm.Protocol.Agent.Mount;

namespace MicroVm.Sandbox.Pods;

/// <summary>One container of a <see cref="PodSandbox"/>, from its creation in the guest to its end.</summary>
internal sealed class SandboxContainer : IDisposable
{
    private readonly PodSandbox _sandbox;
    private readonly IContainerInit _init;
    private readonly TimeSpan _startTimeout;
    private readonly Action<LogLevel, string> _log;
    private readonly List<string> _added = [];
    private HostSocketRelay? _sockets;
    private MountFollower? _mounts;
    private SocketFollower? _socketFollower;
    private bool _inGuest;
    private bool _disposed;

    private SandboxContainer(
        PodSandbox sandbox, ContainerRecord record, KeptConfiguration configuration, IContainerInit init, TimeSpan startTimeout, Action<LogLevel, string> log)
    {
        (_sandbox, Record, Configuration, _init, _startTimeout, _log) = (sandbox, record, configuration, init, startTimeout, log);
        Cgroup = new HostCgroup(record.State.Cgroups ?? []);
        Commands = new ContainerCommands(sandbox, record, configuration, init, startTimeout, log);
    }

    /// <summary>Makes a container that has its id a member of a VM that is started.</summary>
    /// <param name="sandbox">The VM.</param>
    /// <param name="record">Its state; this container is the only writer from now on.</param>
    /// <param name="folder">Folder of its state, where its configuration is kept.</param>
    /// <param name="json">Its configuration.</param>
    /// <param name="spec">What was parsed of it.</param>
    /// <param name="init">Its init's streams and terminal; the caller's.</param>
    /// <param name="startTimeout">How long the guest may take to create it, and to start it.</param>
    /// <param name="log">Takes what concerns it.</param>
    /// <exception cref="SandboxException">The VM's last container has ended meanwhile, or the configuration cannot be kept.</exception>
    internal static SandboxContainer Enter(
        PodSandbox sandbox, ContainerRecord record, string folder, byte[] json, Spec spec, IContainerInit init, TimeSpan startTimeout, Action<LogLevel, string> log)
    {
        record.Change(s => s with { Vmm = ProcessIdentity.Of(sandbox.Vmm.Process.Pid) });
        SandboxContainer container = new(sandbox, record, KeptConfiguration.Keep(folder, json, spec), init, startTimeout, log);
        return sandbox.Enter(container) ? container : throw new SandboxException($"container {record.State.Id} cannot join a VM that has ended meanwhile");
    }

    /// <summary>Its state.</summary>
    internal ContainerRecord Record { get; }

    /// <summary>Its configuration.</summary>
    internal KeptConfiguration Configuration { get; }

    /// <summary>Its cgroup on the host.</summary>
    internal HostCgroup Cgroup { get; }

    /// <summary>What is asked of it.</summary>
    internal ContainerCommands Commands { get; }

    private string Id => Record.State.Id;

    /// <summary>Shows the container's files to a VM that runs already, under the names that the exports have.</summary>
    /// <exception cref="SandboxException">The VMM refused one.</exception>
    private void AddExports(IReadOnlyList<Export> exports, string rootfs)
    {
        foreach (Export export in exports)
        {
            _sandbox.Vmm.Control.AddExport(export, export.Name == rootfs ? FsCache.Exclusive : FsCache.Shared);
            _added.Add(export.Name);
        }
    }

    /// <summary>Creates the container in a VM that runs already, whose other containers share its CPUs from then on; the VM grows by its limits.</summary>
    /// <param name="request">What to create; the ports of sockets count from 0.</param>
    /// <param name="exports">What the VM is to show of it, the root file system first.</param>
    /// <param name="sockets">The host's sockets that it may connect to; their ports count from 0.</param>
    /// <exception cref="SandboxException">The guest or the host refused.</exception>
    /// <exception cref="TtrpcException">The agent does not take streams.</exception>
    internal void Join(CreateContainerRequest request, IReadOnlyList<Export> exports, IReadOnlyList<HostSocket> sockets)
    {
        _sandbox.Size.AddFor(_sandbox, request.ContainerId, Configuration.Spec.Linux?.Resources, text => _log(LogLevel.Warning, text));
        uint firstPort = _sandbox.TakePorts();
        foreach (Mount mount in request.Spec.Mounts.Where(m => m.Socket is { Readiness: false }))
        {
            mount.Socket.Port += firstPort;
        }

        AddExports(exports, exports[0].Name);
        Create(request, exports, [.. sockets.Select(s => s with { Port = s.Port + firstPort })], firstPort);
        _sandbox.Share();
    }

    /// <summary>Creates the container in the guest, up to the point where its init waits to exec.</summary>
    /// <param name="request">What to create.</param>
    /// <param name="exports">What the VM shows of it.</param>
    /// <param name="sockets">The host's sockets that it may connect to.</param>
    /// <param name="firstPort">The first of its ports (<see cref="PodSandbox.TakePorts"/>).</param>
    /// <exception cref="SandboxException">The guest or the host refused.</exception>
    /// <exception cref="TtrpcException">The agent does not take streams.</exception>
    internal void Create(CreateContainerRequest request, IReadOnlyList<Export> exports, IReadOnlyList<HostSocket> sockets, uint firstPort)
    {
        Guest guest = _sandbox.Guest;
        _sockets = HostSocketRelay.Start(_sandbox.Vsock, sockets, more: exports.Any(e => e.FollowsSockets));
        _sockets?.Introduce(request.Spec.Mounts);
        request.Stdio = guest.Call("create container", _ => _init.Connect(_sandbox.Vsock, request.Spec.Process));
        CreateContainerResponse created = guest.Call("create container", agent => agent.CreateContainer(request, _startTimeout));
        _inGuest = true;
        if (MissingDevices.Describe(request.Spec.Devices, created.MissingDevices) is { } missing)
        {
            _log(LogLevel.Warning, missing);
        }

        _init.Begin(guest.Agent);
        void Warn(string text) => _log(LogLevel.Warning, text);
        _mounts = MountFollower.Start(exports, _sandbox.Vmm, guest, Warn);
        _socketFollower = SocketFollower.Start(exports, _sockets, firstPort + (uint)sockets.Count, guest, Warn);
        guest.Agent.DefaultTimeout = GuestPatience.Call;
    }

    /// <summary>Ends the init by SIGKILL, whatever the guest does: one that does not obey loses its VM.</summary>
    internal void Kill()
    {
        try
        {
            Commands.Kill(all: true);
        }
        catch (SandboxException e)
        {
            _log(LogLevel.Debug, $"container {Id} was not killed: {e.Message}");
        }
    }

    /// <summary>Takes the container out of a VM that goes on: from the guest, and its files from the VMM.</summary>
    internal void Remove()
    {
        Stop();
        if (_inGuest)
        {
            Try(() => _sandbox.Guest.Call("remove container", agent => agent.RemoveContainer(new RemoveContainerRequest { ContainerId = Id }, GuestPatience.Exec)));
        }

        Dispose();
        foreach (string name in _added.Concat(_mounts?.Added ?? []))
        {
            Try(() => _sandbox.Vmm.Control.RemoveExport(name));
        }

        _added.Clear();
        _sandbox.Guest.SettleSockets();
    }

    /// <summary>Begins to end: followers of the host's files are stopped, and streams are closed.</summary>
    internal void Stop()
    {
        if (_disposed)
        {
            return;
        }

        _mounts?.Stop();
        _socketFollower?.Stop();
    }

    /// <summary>Once the VM has ended: a call to the guest may be under way.</summary>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        _mounts?.Dispose();
        _socketFollower?.Dispose();
        _sockets?.Dispose();
    }

    private void Try(Action action)
    {
        try
        {
            action();
        }
        catch (SandboxException e)
        {
            _log(LogLevel.Debug, $"container {Id}: {e.Message}");
        }
    }
}
