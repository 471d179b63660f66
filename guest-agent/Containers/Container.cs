using MicroVm.Agent.Cgroups;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Containers;

/// <summary>A container: its specification, cgroup and processes. Lives on the loop's thread.</summary>
public sealed class Container : IDisposable
{
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

    /// <summary>Its cgroup; null when the plan names none.</summary>
    public ContainerCgroup? Cgroup { get; set; }

    /// <summary>Its init; null until it is being set up.</summary>
    public ContainerProcess? Init { get; set; }

    /// <summary>Its other processes, by exec id; those that ended, too.</summary>
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

    /// <inheritdoc/>
    public void Dispose()
    {
        Init?.Dispose();
        foreach (ContainerProcess exec in Execs.Values)
        {
            exec.Dispose();
        }

        Cgroup?.Dispose();
    }
}
