using MicroVm.Linux.Netlink;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.Network;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Runtime;

/// <summary>
/// The commands of an OCI runtime (runtime.md, "Operations", and runc's further ones), a type for each verb. Each throws
/// <see cref="SandboxException"/> or <see cref="SpecException"/> with runc's words where runc has them.
/// </summary>
public sealed class ContainerRuntime
{
    private readonly RuntimeContext _context;
    private readonly CreateVerb _create;
    private readonly RunVerb _run;
    private readonly StartVerb _start;
    private readonly ExecVerb _exec;
    private readonly KillVerb _kill;
    private readonly DeleteVerb _delete;
    private readonly LimitsVerb _limits;

    /// <summary>Works on the containers of one state folder.</summary>
    public ContainerRuntime(RuntimeOptions options, RuntimeLog log)
    {
        ArgumentNullException.ThrowIfNull(options);
        _context = new RuntimeContext(options, log);
        ContainerTermination termination = new(_context);
        _delete = new DeleteVerb(_context, termination);
        _kill = new KillVerb(_context, termination);
        _create = new CreateVerb(_context, _delete);
        _start = new StartVerb(_context, termination);
        _run = new RunVerb(_context, _create, _start, _delete);
        _exec = new ExecVerb(_context);
        _limits = new LimitsVerb(_context);
    }

    /// <summary>Creates a container: its process is there on the host and in the guest, and waits for <see cref="Start"/>.</summary>
    public void Create(RunRequest request) => _create.Create(request);

    /// <summary>Creates and starts a container, and waits for its end unless it is detached.</summary>
    /// <returns>The container's exit status (128 + signal when one ended it); 0 when detached.</returns>
    public int Run(RunRequest request) => _run.Run(request);

    /// <summary>Lets a created container's process run; then the poststart hooks, of which one that fails ends the container.</summary>
    public void Start(string id) => _start.Start(id);

    /// <summary>Starts one more process in a container, and waits for its end unless it is detached.</summary>
    /// <returns>The process's exit status (128 + signal when one ended it); 0 when detached.</returns>
    public int Exec(ExecRequest request) => _exec.Exec(request);

    /// <summary>Sends a signal to the container's init, or to all of its processes.</summary>
    public void Kill(string id, string signal, bool all) => _kill.Kill(id, signal, all);

    /// <summary>Removes a container that has ended; with <paramref name="force"/> ends it first, and an unknown id is no error.</summary>
    public void Delete(string id, bool force) => _delete.Delete(id, force);

    /// <summary>Freezes a running container's processes.</summary>
    public void Pause(string id) => _limits.Pause(id);

    /// <summary>Thaws a paused container.</summary>
    public void Resume(string id) => _limits.Resume(id);

    /// <summary>Changes limits of a container, in the guest and on the host. The VM keeps its size.</summary>
    public void Update(string id, Resources change) => _limits.Update(id, change);

    /// <summary>A container's figures, as the guest's kernel has them.</summary>
    public ContainerFigures Figures(string id) => _limits.Figures(id);

    /// <summary>Watches for a container's processes that are killed for want of memory, from now on.</summary>
    /// <exception cref="SandboxException">The container has ended, or its process does not answer.</exception>
    public OutOfMemoryWatch WatchOutOfMemory(string id) => _limits.WatchOutOfMemory(id);

    /// <summary>Every container, by id, with its live status.</summary>
    public IReadOnlyList<(ContainerState State, ContainerStatus Status)> List() =>
        [.. _context.Store.All(w => _context.Log.Write(LogLevel.Warning, w)).Select(s => (s, s.LiveStatus()))];

    /// <summary>A container and its live status.</summary>
    public (ContainerState State, ContainerStatus Status) State(string id) => _context.Find(id);

    /// <summary>The processes on the host that stand for the container's: its init's and those of every exec.</summary>
    public IReadOnlyList<int> ProcessIds(string id)
    {
        (ContainerState state, ContainerStatus status) = _context.Find(id);
        return status == ContainerStatus.Stopped
            ? []
            : [state.Init.Pid, .. ExecRecords.Alive(_context.Store.FolderOf(id)).Select(e => e.Pid).Order()];
    }

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
}
