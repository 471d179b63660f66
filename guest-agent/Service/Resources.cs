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
    private readonly List<(Container Container, TtrpcCall Call)> _oomWaiters = [];

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
    protected override void AwaitReadiness(ReadinessRequest request, TtrpcCall call)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(call);
        _readiness.Await(request.Port, call);
    }

    /// <inheritdoc/>
    protected override void GetOomEvent(GetOomEventRequest request, TtrpcCall call)
    {
        ArgumentNullException.ThrowIfNull(request);
        ArgumentNullException.ThrowIfNull(call);
        Container container = Find(request.ContainerId);
        if (request.HasKnownKills && (ulong)container.OomKills > request.KnownKills)
        {
            call.Complete(OomEventOf(container));
            return;
        }

        _oomWaiters.RemoveAll(w => w.Call.IsOver);
        _oomWaiters.Add((container, call));
    }

    private static OomEvent OomEventOf(Container container) => new() { ContainerId = container.Id, Kills = (ulong)container.OomKills };

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
        _oomWaiters.Where(w => w.Container == container).ToList().ForEach(w => w.Call.Complete(OomEventOf(container)));
        _oomWaiters.RemoveAll(w => w.Call.IsOver);
    }
}
