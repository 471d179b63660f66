using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Pods;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.State;

namespace MicroVm.Shim.Containers;

/// <summary>A container while it is created: what was made of it, in order, so that a failure can be undone.</summary>
internal sealed class ContainerSetup
{
    private readonly ContainerRequest _request;
    private readonly ContainerStore _store;
    private readonly byte[] _configuration;
    private readonly VmProcess _init;
    private ShimSandbox? _sandbox;
    private bool _boots;
    private ContainerRecord? _record;
    private HostCgroup? _cgroup;
    private SandboxContainer? _container;

    /// <summary>Nothing is made yet.</summary>
    /// <param name="request">What is asked for.</param>
    /// <param name="store">Keeps the state.</param>
    /// <param name="configuration">The bundle's configuration.</param>
    /// <param name="init">The first process; owned.</param>
    internal ContainerSetup(ContainerRequest request, ContainerStore store, byte[] configuration, VmProcess init) =>
        (_request, _store, _configuration, _init) = (request, store, configuration, init);

    /// <summary>Boots a VM for the container.</summary>
    /// <param name="spec">Its configuration, validated.</param>
    /// <param name="rootfs">Absolute path of its root file system.</param>
    /// <param name="sandbox">The VM that is not there yet.</param>
    /// <exception cref="SandboxException">It cannot be created.</exception>
    internal VmContainer Boot(Spec spec, string rootfs, ShimSandbox sandbox)
    {
        (_sandbox, _boots) = (sandbox, true);
        using SandboxBoot boot = new(spec, _request.Id, _request.Bundle, rootfs, _request.Vm, IsSystemd(spec), _request.Log.Write);
        boot.First.Plan.Spec.Process.Terminal = _request.Stdio.Terminal;
        _request.Main.EnterNetwork(spec.Linux?.Namespaces?.Find(n => n?.Type == NamespaceTypes.Network));
        sandbox.Prepare(boot, _store);
        TakeId(boot.State(ProcessIdentity.Current), boot.First.Cgroup);
        int vmm = sandbox.Start(boot).Process.Pid;

        // What needs no guest is done while it boots.
        OutOfMemoryScore.Set(vmm, spec.Process?.OomScoreAdj ?? 0);
        SandboxContainer container = Enter(spec);
        sandbox.Pod.Home = container;
        boot.Finish(container);
        boot.BeginMissingTemplate();
        return Created(spec);
    }

    /// <summary>Creates the container in the shim's VM.</summary>
    /// <param name="spec">Its configuration, validated.</param>
    /// <param name="rootfs">Absolute path of its root file system.</param>
    /// <param name="sandbox">The VM.</param>
    /// <param name="target">What it shares there.</param>
    /// <exception cref="SandboxException">It cannot be created.</exception>
    internal VmContainer Join(Spec spec, string rootfs, ShimSandbox sandbox, JoinTarget target)
    {
        _sandbox = sandbox;
        using ResolvedContainer resolved = ResolvedContainer.Joining(spec, _request.Id, _request.Bundle, rootfs, IsSystemd(spec), Warn, _request.Vm, target);
        resolved.Plan.Spec.Process.Terminal = _request.Stdio.Terminal;
        ContainerState state = resolved.State(ProcessIdentity.Current) with { VmFolder = sandbox.Pod.Folder, VmMemoryMiB = sandbox.Pod.Size.MemoryMiB, VmVcpus = sandbox.Pod.Size.Vcpus };
        TakeId(state, resolved.Cgroup);
        HostLimits.ApplyToMember(resolved.Cgroup, spec.Linux?.Resources, Warn);
        Enter(spec).Join(new CreateContainerRequest { ContainerId = _request.Id, Spec = resolved.Plan.Spec }, resolved.Plan.Exports, resolved.Plan.Sources.Sockets);
        return Created(spec);
    }

    /// <summary>Undoes what was made; the VM, too, when no other container is in it.</summary>
    internal void Undo()
    {
        if (_container is not null)
        {
            _sandbox!.TakeOut(_container, Warn);
        }
        else if (_boots)
        {
            _sandbox!.Dispose();
        }

        _init.Close();
        if (_record is not null)
        {
            _ = _cgroup!.Remove();
            _record.Delete();
        }
    }

    private void TakeId(ContainerState state, HostCgroup cgroup)
    {
        _record = ContainerRecord.Create(_store, state with { Sandbox = ProcessIdentity.Current });
        _cgroup = cgroup;
        cgroup.WarnOfProcesses(Warn);
        cgroup.Create();
    }

    private void Warn(string text) => _request.Log.Write(LogLevel.Warning, text);

    private SandboxContainer Enter(Spec spec) => _container = SandboxContainer.Enter(
        _sandbox!.Pod, _record!, _store.FolderOf(_request.Id), _configuration, spec, _init, _request.Vm.StartTimeout, _request.Log.Write);

    private VmContainer Created(Spec spec)
    {
        // Hooks of the runtime's namespace find the container's network by this process, whose first thread is in it.
        OciState document = _record!.State.ToOci(ContainerStatus.Creating);
        HookRunner.Run("prestart", spec.Hooks?.Prestart, document);
        HookRunner.Run("createRuntime", spec.Hooks?.CreateRuntime, document);
        _record.Change(s => s with { Status = ContainerStatus.Created });
        return new VmContainer(_request, _sandbox!, _container!, _init);
    }

    // slice:prefix:name, which kubelet's systemd driver makes.
    private static bool IsSystemd(Spec spec) => spec.Linux?.CgroupsPath?.Split(':').Length == 3;
}
