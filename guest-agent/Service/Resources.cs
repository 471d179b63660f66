using System.Globalization;
using MicroVm.Agent.Cgroups;
using MicroVm.Agent.Containers;
using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

public sealed partial class AgentService
{
    private readonly Queue<string> _oomEvents = new();
    private readonly List<TtrpcCall> _oomWaiters = [];

    /// <inheritdoc/>
    protected override void StatsContainer(ContainerId request, TtrpcCall call)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(call);
        Container container = Find(request.ContainerId_);
        if (!container.IsAlive)
        {
            throw WrongState("container not running");
        }

        ContainerStats stats = new();
        container.Cgroup?.ReadStatistics(stats.CgroupFiles);
        // The interfaces of the init's network namespace, by its own view of procfs.
        string path = string.Create(CultureInfo.InvariantCulture, $"{container.Init!.Child!.Pid}/net/dev");
        stats.Interfaces.AddRange(NetworkStatistics.Parse(SmallFile.TryRead(_context.Proc, path) ?? ""));
        call.Complete(stats);
    }

    /// <inheritdoc/>
    protected override void UpdateContainer(UpdateContainerRequest request, TtrpcCall call)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(call);
        try
        {
            ContainerCgroup cgroup = CgroupOf(Find(request.ContainerId));
            cgroup.RefuseInUse(request.RefuseMemoryLimitInUse, request.RefuseMemorySwapLimitInUse);
            cgroup.Apply(request.Settings);
        }
        catch (SetupException e)
        {
            throw new TtrpcException(StatusCode.Internal, e.Message, e);
        }

        call.Complete(new Empty());
    }

    /// <inheritdoc/>
    protected override void PauseContainer(ContainerId request, TtrpcCall call) => SetFrozen(request, call, frozen: true);

    /// <inheritdoc/>
    protected override void ResumeContainer(ContainerId request, TtrpcCall call) => SetFrozen(request, call, frozen: false);

    /// <inheritdoc/>
    protected override void GetOomEvent(Empty request, TtrpcCall call)
    {
        if (_oomEvents.TryDequeue(out string? id))
        {
            call.Complete(new OomEvent { ContainerId = id });
            return;
        }

        _oomWaiters.RemoveAll(c => c.IsOver);
        _oomWaiters.Add(call);
    }

    private static ContainerCgroup CgroupOf(Container container) =>
        container.Cgroup ?? throw WrongState($"container \"{container.Id}\" has no cgroup");

    private void SetFrozen(ContainerId request, TtrpcCall call, bool frozen)
    {
        Container container = Find(request.ContainerId_);
        if (!container.IsAlive)
        {
            throw WrongState("container not running");
        }

        if (container.Paused == frozen)
        {
            throw WrongState(frozen ? "container not running" : "container not paused");
        }

        ContainerCgroup cgroup = CgroupOf(container);
        cgroup.Freeze(frozen);
        container.Paused = frozen;
        if (!frozen || cgroup.IsFrozen)
        {
            call.Complete(new Empty());
            return;
        }

        // Freezing ends when each process has come out of the kernel; the answer waits for it, the loop does not.
        RunThread("pause", () =>
        {
            for (int i = 0; i < RemoveAttempts && Attempt(() => _ = cgroup.IsFrozen) is null && !cgroup.IsFrozen; i++)
            {
                Thread.Sleep(RemoveIntervalMilliseconds);
            }

            _loop.Post(() => call.Complete(new Empty()));
        });
    }

    private void NoteOomKills(Container container)
    {
        long kills = 0;
        TryDo(() => kills = container.Cgroup is { Directory.IsClosed: false } cgroup ? cgroup.OomKills : 0);
        if (kills <= container.OomKills)
        {
            return;
        }

        container.OomKills = kills;
        while (_oomWaiters.Count > 0)
        {
            TtrpcCall waiter = _oomWaiters[0];
            _oomWaiters.RemoveAt(0);
            if (!waiter.IsOver)
            {
                waiter.Complete(new OomEvent { ContainerId = container.Id });
                return;
            }
        }

        if (!_oomEvents.Contains(container.Id))
        {
            _oomEvents.Enqueue(container.Id);
        }
    }
}
