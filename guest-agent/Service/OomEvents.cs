using MicroVm.Agent.Cgroups;
using MicroVm.Agent.Containers;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>Counts the kernel's OOM kills of each container, and answers the calls that wait for one.</summary>
internal sealed class OomEvents(ContainerTable containers, OomWatch watch)
{
    private readonly List<(Container Container, TtrpcCall Call)> _waiters = [];

    /// <summary>Follows the events of a container's cgroup.</summary>
    internal void Watch(Container container) => watch.Add(container.Cgroup!, () => Count(container));

    internal void Await(GetOomEventRequest request, TtrpcCall call)
    {
        Container container = containers.Find(request.ContainerId);
        if (request.HasKnownKills && (ulong)container.OomKills > request.KnownKills)
        {
            call.Complete(EventOf(container));
            return;
        }

        _waiters.RemoveAll(w => w.Call.IsOver);
        _waiters.Add((container, call));
    }

    /// <summary>Reads the kernel's count, and answers those that wait when it has grown.</summary>
    internal void Count(Container container)
    {
        long kills = 0;
        Background.TryOrWarn(() => kills = container.Cgroup is { Directory.IsClosed: false } cgroup ? cgroup.OomKills : 0);
        if (kills <= container.OomKills)
        {
            return;
        }

        container.OomKills = kills;
        _waiters.Where(w => w.Container == container).ToList().ForEach(w => w.Call.Complete(EventOf(container)));
        _waiters.RemoveAll(w => w.Call.IsOver);
    }

    /// <summary>Ends the calls that wait for a container that is gone.</summary>
    internal void OnRemoved(Container container) =>
        _waiters.Where(w => w.Container == container).ToList()
            .ForEach(w => w.Call.Fail(StatusCode.NotFound, $"container \"{container.Id}\" was removed"));

    private static OomEvent EventOf(Container container) => new() { ContainerId = container.Id, Kills = (ulong)container.OomKills };
}
