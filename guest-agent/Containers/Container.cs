using MicroVm.Agent.Cgroups;
using MicroVm.Agent.Rootfs;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Containers;

/// <summary>A container: its specification, cgroup and processes. Lives on the loop's thread.</summary>
public sealed class Container : IDisposable
{
    private const int MaxEnded = 64;
    private readonly Queue<ContainerProcess> _ended = [];

    /// <summary>Creates the record of a container that is about to be set up.</summary>
    public Container(string id, ContainerSpec spec)
    {
        Id = id;
        Spec = spec;
    }

    /// <summary>The container's id.</summary>
    public string Id { get; }

    /// <summary>The plan it was made from.</summary>
    public ContainerSpec Spec { get; }

    /// <summary>Its mounts whose sources were made ready, which are to be dropped with it.</summary>
    public List<Mount> Sources { get; } = [];

    /// <summary>Its cgroup; null when the plan names none.</summary>
    public ContainerCgroup? Cgroup { get; set; }

    /// <summary>The procfs of its PID namespace, for who joins that; null where the namespace is the guest's own.</summary>
    public NamespaceProc? Proc { get; set; }

    /// <summary>Its init; null until it is being set up.</summary>
    public ContainerProcess? Init { get; set; }

    /// <summary>Its other processes, by exec id; of those that ended, the last ones.</summary>
    public Dictionary<string, ContainerProcess> Execs { get; } = [];

    /// <summary>OOM kills seen so far.</summary>
    public long OomKills { get; set; }

    /// <summary>Frozen by PauseContainer.</summary>
    public bool Paused { get; set; }

    /// <summary>Being removed.</summary>
    public bool Removing { get; set; }

    /// <summary>The init exists and has not ended.</summary>
    public bool IsAlive => Init is { State: ProcessState.Created or ProcessState.Starting or ProcessState.Running };

    /// <summary>True when the plan has a namespace of <paramref name="kind"/>, new or joined.</summary>
    public bool Has(Namespace.Types.Kind kind) => Spec.Namespaces.Any(n => n.Kind == kind);

    /// <summary>
    /// Keeps the record of an exec that ended for who asks how, and lets go of older ones: a container that is looked at by an exec every
    /// few seconds lives for months. What such a process left running goes on writing to its streams.
    /// </summary>
    public void Retire(ContainerProcess exec)
    {
        _ended.Enqueue(exec);
        if (_ended.Count > MaxEnded)
        {
            ContainerProcess oldest = _ended.Dequeue();
            if (Execs.TryGetValue(oldest.ExecId, out ContainerProcess? known) && known == oldest)
            {
                Execs.Remove(oldest.ExecId);
            }
        }
    }

    /// <summary>True when the plan has a new namespace of <paramref name="kind"/>.</summary>
    public bool HasOwn(Namespace.Types.Kind kind) => Spec.Namespaces.Any(n => n.Kind == kind && n.JoinContainerId.Length == 0);

    /// <inheritdoc/>
    public void Dispose()
    {
        Init?.Dispose();
        foreach (ContainerProcess exec in Execs.Values)
        {
            exec.Dispose();
        }

        Cgroup?.Dispose();
        Proc?.Dispose();
        Proc = null;
    }
}
