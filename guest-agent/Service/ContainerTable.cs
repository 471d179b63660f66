using MicroVm.Agent.Containers;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>The containers that exist, by id. Loop thread only.</summary>
internal sealed class ContainerTable
{
    private readonly Dictionary<string, Container> _containers = [];

    /// <summary>All of them.</summary>
    internal IReadOnlyCollection<Container> All => _containers.Values;

    /// <summary>True when there is a container of that id.</summary>
    internal bool Contains(string id) => _containers.ContainsKey(id);

    /// <summary>True when there is a container of that id whose init has not ended.</summary>
    internal bool IsAlive(string id) => _containers.GetValueOrDefault(id) is { IsAlive: true };

    /// <summary>Adds a container whose id is free.</summary>
    internal void Add(Container container) => _containers.Add(container.Id, container);

    /// <summary>Takes a container out; its owner disposes of it.</summary>
    internal void Remove(Container container) => _containers.Remove(container.Id);

    /// <summary>The container of an id.</summary>
    /// <exception cref="TtrpcException">NotFound.</exception>
    internal Container Find(string id)
    {
        if (!_containers.TryGetValue(id, out Container? container))
        {
            throw new TtrpcException(StatusCode.NotFound, $"container \"{id}\" does not exist");
        }

        return container;
    }

    /// <summary>A process of a container: its init for an empty exec id.</summary>
    /// <exception cref="TtrpcException">NotFound.</exception>
    internal ContainerProcess FindProcess(string containerId, string execId)
    {
        Container container = Find(containerId);
        ContainerProcess? process = execId.Length == 0 ? container.Init : container.Execs.GetValueOrDefault(execId);
        return process ?? throw new TtrpcException(StatusCode.NotFound, $"process \"{execId}\" of container \"{containerId}\" does not exist");
    }
}
