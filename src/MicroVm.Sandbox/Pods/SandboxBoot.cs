using MicroVm.Linux;
using MicroVm.Linux.Tracing;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Network;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Templates;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.Pods;

/// <summary>
/// A VM's start with its first container, in the steps that the command line's sandbox process and containerd's shim have in common;
/// between them each does what is its own, while the guest boots.
/// </summary>
internal sealed class SandboxBoot : IDisposable
{
    private readonly ResolvedContainer _first;
    private readonly VmOptions _vm;
    private readonly VmShape _shape;
    private readonly RuntimeFiles _files;
    private readonly Action<LogLevel, string> _log;
    private readonly StepRecorder _trace;
    private PodSandbox? _sandbox;
    private GuestReady? _ready;
    private bool _fromTemplate;

    /// <summary>Decides the VM's size and files, and resolves its first container.</summary>
    /// <param name="spec">The container's configuration, validated.</param>
    /// <param name="id">Its id.</param>
    /// <param name="bundle">Absolute path of its bundle.</param>
    /// <param name="rootfs">Absolute path of its root file system.</param>
    /// <param name="vm">What is asked for of the VM.</param>
    /// <param name="systemdCgroup">cgroupsPath has systemd's form.</param>
    /// <param name="log">Takes warnings, and what was done when.</param>
    /// <param name="trace">Records the steps; null for nobody.</param>
    /// <exception cref="Oci.SpecException">Something cannot be resolved.</exception>
    /// <exception cref="SandboxException">The size is not possible, or a file is missing.</exception>
    internal SandboxBoot(Spec spec, string id, string bundle, string rootfs, VmOptions vm, bool systemdCgroup, Action<LogLevel, string> log, StepRecorder? trace = null)
    {
        (_vm, _log, _trace) = (vm, log, trace ?? StepRecorder.Off);
        using StepScope step = _trace.Begin("resolve the configuration");
        _shape = VmShape.Resolve(spec, vm, Host.MemoryMiB, Environment.ProcessorCount);
        _files = RuntimeFiles.Locate(vm.Kernel, vm.Initramfs) with { PrivateImages = vm.PrivateImages };
        _first = ResolvedContainer.First(spec, id, bundle, rootfs, systemdCgroup, w => log(LogLevel.Warning, w));
        log(LogLevel.Debug, "the configuration is resolved");
    }

    /// <summary>The first container.</summary>
    internal ResolvedContainer First => _first;

    /// <summary>After <see cref="Start"/>: the template that is to be made in the background; null where none is.</summary>
    internal MissingTemplate? MissingTemplate { get; private set; }

    /// <summary>Connects the network, and makes the sandbox, without its VM yet.</summary>
    /// <param name="store">Keeps the VM's folder.</param>
    /// <param name="folder">That folder's name, which no other VM has.</param>
    /// <param name="network">Path of a new network namespace, for a container with one of its own.</param>
    /// <param name="moveAlong">As <see cref="PodSandbox.MoveAlong"/>.</param>
    /// <exception cref="SandboxException">An interface cannot be connected.</exception>
    internal PodSandbox Prepare(ContainerStore store, string folder, string network, Action<HostCgroup> moveAlong)
    {
        using StepScope step = _trace.Begin("connect the network");
        VmNetwork connected = VmNetwork.Prepare(_first.Spec, _shape.Vcpus, network);
        _sandbox = new PodSandbox(store, folder, connected, new PodSize(new VmMemory(_shape.MemoryMiB, _shape.GrowthMiB), new VmCpus(_shape.Vcpus, _shape.MaxVcpus)), _log) { MoveAlong = moveAlong, Trace = _trace };
        _log(LogLevel.Debug, "the network is connected");
        return _sandbox;
    }

    /// <summary>The first container's first state.</summary>
    /// <param name="init">The host process that stands for its init.</param>
    internal ContainerState State(ProcessIdentity init) => _first.State(init) with
    {
        VmFolder = _sandbox!.Folder,
        VmMemoryMiB = _shape.MemoryMiB,
        VmVcpus = _shape.Vcpus,
        NetworkNamespace = _sandbox.Network.Path,
    };

    /// <summary>
    /// Starts the VMM, in the container's cgroup, which has been made. The calling thread goes there, too (<see cref="HostCgroup.JoinThread"/>), and
    /// the VMM ends with it.
    /// </summary>
    /// <exception cref="SandboxException">It cannot be started, or was ended meanwhile.</exception>
    internal Vmm Start()
    {
        PodSandbox sandbox = _sandbox!;
        long began = StepRecorder.Now;
        HostLimits.ApplyAtCreation(
            _first.Cgroup, _first.Spec.Linux?.Resources, _shape.MemoryMiB + _files.CopiesMiB, w => _log(LogLevel.Warning, w));
        using SafeFd? unified = _first.Cgroup.JoinThread();
        _log(LogLevel.Debug, "the cgroup is made");
        long limited = StepRecorder.Now;
        _trace.Add("limit and enter the cgroup", began, limited);
        sandbox.MakeFolder();
        _ready = GuestReady.Listen(sandbox.Vsock);
        using Template? template = TemplateChoice.For(_vm, _files, _shape, sandbox.Network, _log, out MissingTemplate? missing);
        MissingTemplate = missing;
        _fromTemplate = template is not null;
        Vmm vmm = sandbox.StartVm(() => Vmm.Start(
            _files, _shape, sandbox.Vsock, _first.Plan.Exports, sandbox.Network, _vm.ConsoleLog, unified, _first.Spec.Linux?.UidMappings, _first.Spec.Linux?.GidMappings, template));
        _trace.Add("start microvm-vmm", limited, StepRecorder.Now);
        _log(LogLevel.Debug, $"started microvm-vmm {vmm.Process.Pid}: {_shape.MemoryMiB} MiB, {_shape.Vcpus} vCPUs of {_shape.MaxVcpus}");
        return vmm;
    }

    /// <summary>Waits for the guest, and has it set up the network and create the container.</summary>
    /// <param name="container">The container, a member of the sandbox.</param>
    /// <exception cref="SandboxException">The VM ended, or guest or host refused.</exception>
    /// <exception cref="Ttrpc.TtrpcException">The agent does not take streams.</exception>
    internal void Finish(SandboxContainer container)
    {
        PodSandbox sandbox = _sandbox!;
        NetworkView view;
        using (_trace.Begin("read the network"))
        {
            view = sandbox.Network.Read();
            ListenOnLoopback(sandbox.Network);
        }

        _log(LogLevel.Debug, "everything but the guest is ready");
        sandbox.Connect(_ready!, _fromTemplate, _vm.StartTimeout);
        _log(LogLevel.Debug, "the agent is ready");
        using (_trace.Begin("set up the network"))
        {
            sandbox.SetUpNetwork(view);
        }

        using StepScope step = _trace.Begin("create the container in the guest");
        CreateContainerRequest create = new() { ContainerId = _first.Id, Spec = _first.Plan.Spec };
        container.Create(create, _first.Plan.Exports, _first.Plan.Sources.Sockets, sandbox.TakePorts());
        _log(LogLevel.Debug, "the guest has the container");
    }

    /// <summary>Has the missing template made by a thread of this process.</summary>
    internal void BeginMissingTemplate()
    {
        if (MissingTemplate is not null)
        {
            BackgroundTemplate.Begin(_shape with { HostCpus = [], StripSetId = false }, _vm.StartTimeout, _log);
        }
    }

    // A container without it is better than none, and few are asked by localhost of their namespace.
    private void ListenOnLoopback(VmNetwork network)
    {
        try
        {
            network.ListenOnLoopback();
        }
        catch (LinuxException e)
        {
            _log(LogLevel.Debug, $"connections to localhost of the network namespace do not reach the container: {e.Message}");
        }
    }

    public void Dispose()
    {
        _ready?.Dispose();
        _first.Dispose();
    }
}
