using System.Globalization;
using MicroVm.Agent.Cgroups;
using MicroVm.Agent.Containers;
using MicroVm.Agent.Rootfs;
using MicroVm.Protocol.Agent;
using MicroVm.Ttrpc;

namespace MicroVm.Agent.Service;

/// <summary>A container's cgroup: statistics, limits, freezing.</summary>
internal sealed class ContainerResources(AgentState agent)
{
    private const int FreezePatienceMilliseconds = 30_000;
    private const int FreezeIntervalMilliseconds = 50;

    internal void ReadStatistics(ContainerId request, TtrpcCall call)
    {
        Container container = agent.Containers.Find(request.ContainerId_);
        if (!container.IsAlive)
        {
            throw Refusal.WrongState("container not running");
        }

        ContainerStats stats = new();
        container.Cgroup?.ReadStatistics(stats.CgroupFiles);
        // The interfaces of the init's network namespace, by its own view of procfs.
        string path = string.Create(CultureInfo.InvariantCulture, $"{container.Init!.Child!.Pid}/net/dev");
        stats.Interfaces.AddRange(NetworkStatistics.Parse(SmallFile.TryRead(agent.Setup.Proc, path) ?? ""));
        call.Complete(stats);
    }

    internal void Update(UpdateContainerRequest request, TtrpcCall call)
    {
        try
        {
            ContainerCgroup cgroup = CgroupOf(agent.Containers.Find(request.ContainerId));
            cgroup.RefuseInUse(request.RefuseMemoryLimitInUse, request.RefuseMemorySwapLimitInUse);
            if (request.ReclaimMemoryInUse)
            {
                cgroup.ReclaimBeyond(request.Settings);
            }

            cgroup.Apply(request.Settings);
        }
        catch (SetupException e)
        {
            throw new TtrpcException(StatusCode.Internal, e.Message, e);
        }

        call.Complete(new Empty());
    }

    /// <summary>Pauses or resumes.</summary>
    internal void SetFrozen(ContainerId request, TtrpcCall call, bool frozen)
    {
        Container container = agent.Containers.Find(request.ContainerId_);
        if (!container.IsAlive)
        {
            throw Refusal.WrongState("container not running");
        }

        if (container.Paused == frozen)
        {
            throw Refusal.WrongState(frozen ? "container not running" : "container not paused");
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
        Background.Run("pause", () =>
        {
            for (int waited = 0; waited < FreezePatienceMilliseconds && Background.Attempt(() => _ = cgroup.IsFrozen) is null && !cgroup.IsFrozen; waited += FreezeIntervalMilliseconds)
            {
                Thread.Sleep(FreezeIntervalMilliseconds);
            }

            agent.Loop.Post(() => call.Complete(new Empty()));
        });
    }

    private static ContainerCgroup CgroupOf(Container container) =>
        container.Cgroup ?? throw Refusal.WrongState($"container \"{container.Id}\" has no cgroup");
}
