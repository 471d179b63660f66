using System.Diagnostics;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Netlink;
using MicroVm.Oci;
using MicroVm.Sandbox.Network;
using MicroVm.Sandbox.StandIn;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Runtime;

/// <summary>
/// The commands of an OCI runtime (runtime.md, "Operations", and runc's further ones). Each throws
/// <see cref="SandboxException"/> or <see cref="SpecException"/> with runc's words where runc has them.
/// </summary>
public sealed partial class ContainerRuntime
{
    private readonly RuntimeOptions _options;
    private readonly RuntimeLog _log;
    private readonly ContainerStore _store;
    private readonly long _began = Stopwatch.GetTimestamp();

    /// <summary>Works on the containers of one state folder.</summary>
    public ContainerRuntime(RuntimeOptions options, RuntimeLog log)
    {
        _options = options;
        _log = log;
        _store = new ContainerStore(options.Root);
    }

    /// <summary>Every container, by id, with its live status.</summary>
    public IReadOnlyList<(ContainerState State, ContainerStatus Status)> List() => [.. _store.All(w => _log.Write(LogLevel.Warning, w)).Select(s => (s, s.LiveStatus()))];

    /// <summary>
    /// The IP addresses of a container's interfaces with their prefix lengths ("10.88.0.2/16"), except for loopback and link-local
    /// ones; none when it is gone.
    /// </summary>
    public static IReadOnlyList<string> Addresses(ContainerState state)
    {
        ArgumentNullException.ThrowIfNull(state);
        try
        {
            using NetworkNamespace ns = NetworkNamespace.Open($"/proc/{state.Init.Pid}/ns/net");
            return ns.Netlink(NamespaceReader.ReadAddresses);
        }
        catch (IOException)
        {
            return [];
        }
    }

    /// <summary>A container and its live status.</summary>
    public (ContainerState State, ContainerStatus Status) State(string id)
    {
        ContainerState state = _store.Get(id);
        return (state, state.LiveStatus());
    }

    /// <summary>Lets a created container's process run; then the poststart hooks, of which one that fails ends the container.</summary>
    public void Start(string id)
    {
        (ContainerState state, ContainerStatus status) = State(id);
        switch (status)
        {
            case ContainerStatus.Created:
                break;
            case ContainerStatus.Stopped:
                throw new SandboxException("cannot start a container that has stopped");
            case ContainerStatus.Running:
                throw new SandboxException("cannot start an already running container");
            default:
                throw new SandboxException($"cannot start a container in the {Name(status)} state");
        }

        using ReadinessRelay? readiness = ReadinessRelay.Open(_log);
        StartCreated(state);
        readiness?.PassOn(_store.VsockOf(state), state.Id, state.Init.Pid);
    }

    /// <summary>Freezes a running container's processes.</summary>
    public void Pause(string id)
    {
        if (State(id).Status is not (ContainerStatus.Running or ContainerStatus.Created))
        {
            throw new SandboxException(RuntimeTexts.NotRunning);
        }

        Ask(id, new ControlCall { Verb = ControlVerb.Pause });
    }

    /// <summary>Thaws a paused container.</summary>
    public void Resume(string id)
    {
        if (State(id).Status != ContainerStatus.Paused)
        {
            throw new SandboxException("container not paused");
        }

        Ask(id, new ControlCall { Verb = ControlVerb.Resume });
    }

    /// <summary>The processes on the host that stand for the container's: its init's and those of every exec.</summary>
    public IReadOnlyList<int> ProcessIds(string id)
    {
        (ContainerState state, ContainerStatus status) = State(id);
        return status == ContainerStatus.Stopped
            ? []
            : [state.Init.Pid, .. ExecRecords.Alive(_store.FolderOf(id)).Select(e => e.Pid).Order()];
    }

    private static string Name(ContainerStatus status) => status.ToString().ToLowerInvariant();

    private static string WorkingBundle(string bundle)
    {
        string path = Path.GetFullPath(bundle);
        return Directory.Exists(path) ? path : throw new SandboxException($"chdir {bundle}: no such file or directory");
    }

    private void Done(string step) => _log.Write(LogLevel.Debug, RuntimeLog.Stamped(step, _began));

    private void StartCreated(ContainerState state)
    {
        Ask(state.Id, new ControlCall { Verb = ControlVerb.Start });
        try
        {
            HookRunner.Run("poststart", state.Hooks?.Poststart, state.ToOci(ContainerStatus.Running));
        }
        catch (SandboxException)
        {
            WarnOnly(() => End(state));
            throw;
        }
    }

    private ControlReply Ask(string id, ControlCall call)
    {
        try
        {
            return ControlClient.Call(_store.FolderOf(id), call);
        }
        catch (LinuxException e)
        {
            _log.Write(LogLevel.Debug, e.Message);
            throw new SandboxException(RuntimeTexts.NotRunning, e);
        }
    }

    private void WarnOnly(Action hooks)
    {
        try
        {
            hooks();
        }
        catch (SandboxException e)
        {
            _log.Write(LogLevel.Warning, e.Message);
        }
    }

    private StandInRequest Request(string id) => new()
    {
        Root = Path.GetFullPath(_options.Root),
        Id = id,
        SystemdCgroup = _options.SystemdCgroup,
        LogFile = _options.LogFile is null ? null : Path.GetFullPath(_options.LogFile),
        LogJson = _options.LogJson,
        Debug = _options.Debug,
        Began = _began,
    };
}
