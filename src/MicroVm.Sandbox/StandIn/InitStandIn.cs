using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Network;
using MicroVm.Sandbox.Plan;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Streams;
using MicroVm.Sandbox.Vm;
using MicroVm.Ttrpc;

namespace MicroVm.Sandbox.StandIn;

/// <summary>
/// The host process that stands for a container's init: its id is the container's pid, it lives as long as the init, and
/// ends as the init does. The VMM is its child and ends with it.
/// </summary>
internal sealed class InitStandIn : IDisposable
{
    private readonly StandInRequest _request;
    private readonly StandInCaller _caller;
    private readonly FirstThread _first;
    private readonly ContainerStore _store;
    private readonly SignalRelay _signals;
    private readonly GuestProcess _process;
    private readonly Lock _vmLock = new();
    private ContainerRecord? _record;
    private Vmm? _vmm;
    private Guest? _guest;
    private ControlServer? _control;
    private HostCgroup? _before;
    private VmNetwork? _network;
    private ContainerCommands? _commands;
    private HostSocketRelay? _sockets;
    private MountFollower? _mounts;
    private SocketFollower? _socketFollower;
    private bool _abandoned;

    internal InitStandIn(StandInRequest request, StandInCaller caller, FirstThread first)
    {
        _request = request;
        _caller = caller;
        _first = first;
        _store = new ContainerStore(request.Root);
        _process = new GuestProcess(request, "", caller);
        _signals = new SignalRelay(KillVm);
    }

    /// <summary>Creates the container, serves commands, and waits for the init's end.</summary>
    /// <returns>How it ended; null when there is no container: the caller was told why.</returns>
    internal ExitStatus? Run()
    {
        try
        {
            if (!Create())
            {
                Undo();
                return null;
            }
        }
        catch (Exception e) when (e is SandboxException or SpecException or TtrpcException or LinuxException)
        {
            Undo();
            _caller.Fail(e.Message, _record?.State);
            return null;
        }

        return WaitForEnd();
    }

    public void Dispose()
    {
        _mounts?.Stop();
        _socketFollower?.Stop();
        _commands?.Dispose();
        _process.Dispose();
        _guest?.Dispose();
        EndVm();
        _mounts?.Dispose();
        _socketFollower?.Dispose();
        _sockets?.Dispose();
        _network?.Dispose();
        _control?.Dispose();
        _signals.Dispose();
    }

    private bool Create()
    {
        _caller.Log(LogLevel.Debug, "the container's process runs");
        string bundle = _request.Bundle!;
        Spec spec = SpecReader.ParseBundle(_request.Configuration);
        string rootfs = SpecValidator.Validate(spec, bundle);
        HookRunner.Check(spec.Hooks);
        bool terminal = spec.Process!.Terminal ?? false;
        CheckTerminal(terminal);
        List<string> warnings = [];
        VmShape shape = VmShape.Resolve(spec, _request.Vm!, Host.MemoryMiB, Environment.ProcessorCount);
        RuntimeFiles files = RuntimeFiles.Locate(_request.Vm!.Kernel, _request.Vm.Initramfs) with { PrivateImages = _request.Vm.PrivateImages };
        (HostCgroup cgroup, _before) = HostCgroup.Of(spec.Linux?.CgroupsPath, _request.Id, _request.SystemdCgroup);
        cgroup.RefuseFrozen();
        using ContainerPlan plan = PlanBuilder.Build(spec, _request.Id, bundle, rootfs, warnings);
        GuestDefaults.Add(plan.Spec.Sysctls, GuestDefaults.OfHost);
        CallerLimits.Add(plan.Spec.Process);
        warnings.ForEach(w => _caller.Log(LogLevel.Warning, w));
        _caller.Log(LogLevel.Debug, "the configuration is resolved");
        VmNetwork network = _network = VmNetwork.Prepare(spec, shape.Vcpus);
        _caller.Log(LogLevel.Debug, "the network is connected");
        ContainerState state = new()
        {
            OciVersion = spec.OciVersion!,
            Id = _request.Id,
            Bundle = bundle,
            Rootfs = rootfs,
            Created = DateTimeOffset.UtcNow,
            Owner = Libc.getuid(),
            Init = ProcessIdentity.Current,
            Status = ContainerStatus.Creating,
            Annotations = spec.Annotations,
            Hooks = spec.Hooks,
            Cgroups = cgroup.Folders,
            VmMemoryMiB = shape.MemoryMiB,
            Transient = _request.Transient,
            NetworkNamespace = network.Path,
        };
        _record = ContainerRecord.Create(_store, state);
        cgroup.WarnOfProcesses(w => _caller.Log(LogLevel.Warning, w));
        cgroup.Create();
        HostLimits.ApplyAtCreation(cgroup, spec.Linux?.Resources, shape.MemoryMiB + files.CopiesMiB, w => _caller.Log(LogLevel.Warning, w));
        using SafeFd? unified = cgroup.JoinThread();
        _caller.Log(LogLevel.Debug, "the cgroup is made");
        string vsock = _store.VsockOf(_request.Id);
        GuestReady.MakeFolder(vsock);
        using GuestReady ready = GuestReady.Listen(vsock);
        Vmm vmm = StartVm(spec, files, shape, plan, unified);

        // What needs no guest is done while it boots.
        vmm.ReadConsole();
        cgroup.Join();
        _record.Change(s => s with { Vmm = ProcessIdentity.Of(vmm.Process.Pid) });
        KeptConfiguration configuration = KeptConfiguration.Keep(_store.FolderOf(_request.Id), _request.Configuration, spec);
        using ContainerView view = ContainerView.Open(spec, bundle, rootfs);
        _first.Do(() =>
        {
            network.Enter();
            view.Enter();
        });
        NetworkView networkView = network.Read();
        CreateContainerRequest create = new() { ContainerId = _request.Id, Spec = plan.Spec };
        _caller.Log(LogLevel.Debug, "everything but the guest is ready");
        ready.Wait(vmm, _request.Vm!.StartTimeout);
        _guest = Guest.Connect(vmm, vsock, _request.Vm.StartTimeout);
        _caller.Log(LogLevel.Debug, "the agent is ready");
        _sockets = HostSocketRelay.Start(vsock, plan.Sources.Sockets, more: plan.Exports.Exists(e => e.ShowsSockets));
        CreateInGuest(create, networkView);
        _mounts = MountFollower.Start(plan.Exports, vmm, _guest, text => _caller.Log(LogLevel.Warning, text));
        _socketFollower = SocketFollower.Start(
            plan.Exports, _sockets, Vm.HostSocket.FirstPort + (uint)plan.Sources.Sockets.Count, _guest, text => _caller.Log(LogLevel.Warning, text));
        _caller.Log(LogLevel.Debug, "the guest has the container");
        _first.Do(view.AttachVolumes);
        Show(view);
        _guest.Agent.DefaultTimeout = GuestPatience.Call;
        _commands = new ContainerCommands(vsock, _record, configuration, _guest, vmm, network, _process, _caller, _request.Vm.StartTimeout);
        _control = ControlServer.Start(_store.FolderOf(_request.Id), _commands.Answer);
        return HandOver(terminal);
    }

    /// <summary>For callers that list processes; without it the container runs all the same.</summary>
    private void Show(ContainerView view)
    {
        try
        {
            _first.Do(view.ShowProcess);
        }
        catch (LinuxException e)
        {
            _caller.Log(LogLevel.Debug, $"the process is not listed in the container's /proc: {e.Message}");
        }
    }

    private void CheckTerminal(bool terminal)
    {
        if (_request.Foreground)
        {
            if (terminal && !_request.HasTerminalFd && CallerTerminal.OfStreams() is null)
            {
                throw CallerTerminal.Missing;
            }
        }
        else if (terminal && _request.ConsoleSocket is null)
        {
            throw new SandboxException("cannot allocate tty if runc will detach without setting console socket");
        }

        if (_request.ConsoleSocket is not null && (!terminal || _request.Foreground))
        {
            throw new SandboxException("cannot use console socket if runc will not detach or allocate tty");
        }
    }

    private Vmm StartVm(Spec spec, RuntimeFiles files, VmShape shape, ContainerPlan plan, SafeFd? cgroup)
    {
        Vmm vmm = Vmm.Start(files, shape, _store.VsockOf(_request.Id), plan.Exports, _network!, _request.Vm!.ConsoleLog, cgroup, spec.Linux?.UidMappings, spec.Linux?.GidMappings);
        _network!.Inherited();
        lock (_vmLock)
        {
            _vmm = vmm;
        }

        if (_signals.AbortedBy != 0)
        {
            throw new SandboxException("interrupted");
        }

        _caller.Log(LogLevel.Debug, $"started microvm-vmm {vmm.Process.Pid}: {shape.MemoryMiB} MiB, {shape.Vcpus} vCPUs");
        return vmm;
    }

    private void CreateInGuest(CreateContainerRequest create, NetworkView networkView)
    {
        string vsock = _store.VsockOf(_request.Id);
        _guest!.Call("set up the network", agent =>
        {
            _network!.SetUp(_vmm!, agent, networkView);
            return 0;
        });
        create.Stdio = _guest.Call("create container", _ => _process.Connect(vsock, create.Spec.Process));
        CreateContainerResponse created = _guest.Call("create container", agent => agent.CreateContainer(create));
        if (MissingDevices.Describe(create.Spec.Devices, created.MissingDevices) is { } missing)
        {
            _caller.Log(LogLevel.Warning, missing);
        }

        _process.Attach(_guest.Agent);
        _process.StartStreams();
    }

    /// <summary>The caller runs hooks and writes the pid file; a caller that dies over it takes the container with it.</summary>
    private bool HandOver(bool terminal)
    {
        if (!_caller.Send(new StandInMessage { Kind = StandInMessageKind.Created, State = _record!.State, Terminal = terminal }))
        {
            return false;
        }

        // While the caller runs hooks.
        Confinement.ForInit([.. _mounts is null ? [] : MountFollower.SystemCalls, .. _socketFollower is null ? [] : SocketFollower.SystemCalls]);
        if (!_caller.WaitForProceed())
        {
            return false;
        }

        _record.Change(s => s with { Status = ContainerStatus.Created });
        _signals.Start(signal => _process.Deliver(signal));

        // The terminal's new owner may have set its size before.
        _process.FollowTerminal();
        _caller.Log(LogLevel.Debug, "created");
        _caller.Send(new StandInMessage { Kind = StandInMessageKind.Ready });
        if (_request.Foreground)
        {
            _caller.Watch(() =>
            {
                _abandoned = true;
                KillVm();
            });
        }
        else
        {
            _caller.Release();
        }

        return true;
    }

    private ExitStatus WaitForEnd()
    {
        WaitProcessResponse end;
        ExitStatus exit;
        try
        {
            end = _guest!.WaitProcess(_request.Id);
            exit = ProcessEnd.Of(end);
        }
        catch (SandboxException e)
        {
            _commands!.End(outOfMemory: false);
            _process.DrainAfterLoss();
            _caller.Fail(e.Message);
            if (_abandoned)
            {
                Undo();
            }

            return new ExitStatus(0, Libc.SIGKILL);
        }

        _commands!.End(end.OomKilled);
        _process.Drain();
        _control!.Finish();
        if (end.OomKilled)
        {
            _caller.Log(LogLevel.Warning, $"container {_request.Id} was killed: out of memory (linux.resources.memory.limit, or the VM's memory)");
            TellHost();
        }

        return exit;
    }

    /// <summary>Callers that watch the container's cgroup on the host learn of the kill, too.</summary>
    private void TellHost()
    {
        EndVm();
        try
        {
            _ = OutOfMemoryVictim.Offer(new HostCgroup(_record!.State.Cgroups!));
        }
        catch (Exception e) when (e is SandboxException or LinuxException)
        {
            _caller.Log(LogLevel.Debug, $"callers that watch the cgroup are not told that memory ran out: {e.Message}");
        }
    }

    private void EndVm()
    {
        lock (_vmLock)
        {
            _vmm?.Dispose();
            _vmm = null;
        }
    }

    private void Undo()
    {
        Dispose();
        if (_record is null)
        {
            return;
        }

        try
        {
            // A cgroup can be removed only from outside of it.
            _before?.Join();
            _ = new HostCgroup(_record.State.Cgroups!).Remove();
        }
        catch (SandboxException e)
        {
            _caller.Log(LogLevel.Warning, e.Message);
        }

        _record.Delete();
    }

    /// <summary>Without its VM, whatever is being waited for fails at once.</summary>
    private void KillVm()
    {
        lock (_vmLock)
        {
            _vmm?.Process.Signal(Libc.SIGKILL);
        }
    }
}
