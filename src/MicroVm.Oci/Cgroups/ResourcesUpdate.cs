using MicroVm.Oci.Config;

namespace MicroVm.Oci.Cgroups;

/// <summary>
/// <c>update</c>: limits that change in a running container. Some depend on others (memory and swap, quota and burst), so that
/// the change is laid over what was in force, as runc does it.
/// </summary>
/// <param name="Merged">What is in force afterwards: the <c>current</c> of the next update.</param>
/// <param name="Settings">What is written, in order.</param>
/// <param name="RefuseMemoryInUse">When greater than 0, the update is refused if so much memory is in use (<c>checkBeforeUpdate</c>).</param>
/// <param name="RefuseSwapInUse">The same for memory and swap together.</param>
public sealed record ResourcesUpdate(Resources Merged, List<CgroupSetting> Settings, long RefuseMemoryInUse, long RefuseSwapInUse)
{
    /// <summary>Resolves a change.</summary>
    /// <param name="current">What is in force: the bundle's limits, or the last update's <see cref="Merged"/>.</param>
    /// <param name="change">The change; absent members, and limits of 0, stay as they are. Devices cannot be changed, as in runc.</param>
    /// <param name="warnings">Takes a line for each setting that has no effect in a VM.</param>
    /// <exception cref="SpecException">As for <see cref="CgroupSettings.FromResources"/>.</exception>
    public static ResourcesUpdate Resolve(Resources? current, Resources change, ICollection<string> warnings)
    {
        ArgumentNullException.ThrowIfNull(change);
        current ??= new Resources();
        Resources merged = current with
        {
            Memory = Merge(current.Memory, change.Memory),
            Cpu = Merge(current.Cpu, change.Cpu),
            Pids = change.Pids?.Limit is null or 0 ? current.Pids : change.Pids,
            BlockIO = change.BlockIO ?? current.BlockIO,
            HugepageLimits = change.HugepageLimits is { Count: > 0 } ? change.HugepageLimits : current.HugepageLimits,
            Network = change.Network ?? current.Network,
            Rdma = change.Rdma is { Count: > 0 } ? change.Rdma : current.Rdma,
            Unified = Merge(current.Unified, change.Unified),
        };

        // Checked whole; written is only what the change touches, with what belongs to it.
        _ = CgroupSettings.FromResources(merged, []);
        Resources touched = new()
        {
            Memory = change.Memory is null ? null : merged.Memory,
            Cpu = Touched(merged.Cpu, change.Cpu),
            Pids = change.Pids,
            BlockIO = change.BlockIO,
            HugepageLimits = change.HugepageLimits,
            Network = change.Network,
            Rdma = change.Rdma,
            Unified = change.Unified,
        };
        List<CgroupSetting> settings = CgroupSettings.FromResources(touched, warnings);
        int quota = settings.FindIndex(s => s.File == "cpu.max");
        if (quota >= 0 && settings.Exists(s => s.File == "cpu.max.burst"))
        {
            // Neither the old burst may exceed the new quota, nor the new burst the old quota.
            settings.Insert(quota, new CgroupSetting("cpu.max.burst", "0"));
        }

        bool check = merged.Memory?.CheckBeforeUpdate == true && change.Memory is not null;
        return new ResourcesUpdate(
            merged, settings, check ? Positive(merged.Memory!.Limit) : 0, check ? Positive(merged.Memory!.Swap) : 0);
    }

    private static long? Set(long? change, long? current) => change is null or 0 ? current : change;

    private static ulong? Set(ulong? change, ulong? current) => change is null or 0 ? current : change;

    private static long Positive(long? value) => Math.Max(0, value ?? 0);

    private static MemoryResources? Merge(MemoryResources? current, MemoryResources? change)
    {
        if (change is null || current is null)
        {
            return change ?? current;
        }

        return current with
        {
            Limit = Set(change.Limit, current.Limit),
            Reservation = Set(change.Reservation, current.Reservation),

            // As runc: memory without a limit is meant for swap, too.
            Swap = Set(change.Swap, change.Limit == -1 ? -1 : current.Swap),
            Kernel = Set(change.Kernel, current.Kernel),
            KernelTCP = Set(change.KernelTCP, current.KernelTCP),
            Swappiness = change.Swappiness ?? current.Swappiness,
            DisableOOMKiller = change.DisableOOMKiller ?? current.DisableOOMKiller,
            CheckBeforeUpdate = change.CheckBeforeUpdate ?? current.CheckBeforeUpdate,
        };
    }

    private static CpuResources? Merge(CpuResources? current, CpuResources? change)
    {
        if (change is null || current is null)
        {
            return change ?? current;
        }

        return current with
        {
            Shares = Set(change.Shares, current.Shares),
            Quota = Set(change.Quota, current.Quota),
            Burst = change.Burst ?? current.Burst,
            Period = Set(change.Period, current.Period),
            RealtimeRuntime = Set(change.RealtimeRuntime, current.RealtimeRuntime),
            RealtimePeriod = Set(change.RealtimePeriod, current.RealtimePeriod),
            Cpus = string.IsNullOrEmpty(change.Cpus) ? current.Cpus : change.Cpus,
            Mems = string.IsNullOrEmpty(change.Mems) ? current.Mems : change.Mems,
            Idle = change.Idle ?? current.Idle,
        };
    }

    // Quota, period and burst are two files that hold each other to account; shares and idle are apart.
    private static CpuResources? Touched(CpuResources? merged, CpuResources? change)
    {
        if (merged is null || change is null)
        {
            return null;
        }

        bool bandwidth = change.Quota is not (null or 0) || change.Period is not (null or 0) || change.Burst is not null;
        bool weight = change.Shares is not (null or 0) || change.Idle is not null;
        return merged with
        {
            Quota = bandwidth ? merged.Quota : null,
            Period = bandwidth ? merged.Period : null,
            Burst = bandwidth ? merged.Burst : null,
            // The kernel refuses a weight for an idle cgroup.
            Shares = weight && merged.Idle != 1 ? merged.Shares : null,
            Idle = change.Idle,
            Cpus = change.Cpus,
            Mems = change.Mems,
            RealtimeRuntime = change.RealtimeRuntime,
            RealtimePeriod = change.RealtimePeriod,
        };
    }

    private static SortedDictionary<string, string>? Merge(SortedDictionary<string, string>? current, SortedDictionary<string, string>? change)
    {
        if (change is null || current is null)
        {
            return change ?? current;
        }

        SortedDictionary<string, string> merged = new(current, StringComparer.Ordinal);
        foreach ((string file, string value) in change)
        {
            merged[file] = value;
        }

        return merged;
    }
}
