using MicroVm.Sandbox.Runtime;
using MicroVm.Shim.Api.CgroupsV2;

namespace MicroVm.Shim.Tasks;

/// <summary>Figures of cgroup v2 files under their own names.</summary>
internal static class MetricsV2
{
    internal static Api.CgroupsV2.Metrics Of(ContainerFigures figures)
    {
        IReadOnlyDictionary<string, ulong> cpu = figures.Table("cpu.stat"), events = figures.Table("memory.events");
        Api.CgroupsV2.Metrics metrics = new()
        {
            Pids = new PidsStat { Current = figures.Number("pids.current") ?? 0, Limit = figures.Number("pids.max") ?? 0 },
            Cpu = new CPUStat
            {
                UsageUsec = cpu.GetValueOrDefault("usage_usec"),
                UserUsec = cpu.GetValueOrDefault("user_usec"),
                SystemUsec = cpu.GetValueOrDefault("system_usec"),
                NrPeriods = cpu.GetValueOrDefault("nr_periods"),
                NrThrottled = cpu.GetValueOrDefault("nr_throttled"),
                ThrottledUsec = cpu.GetValueOrDefault("throttled_usec"),
            },
            Memory = Memory(figures),
            Io = BlockIo(figures),
            MemoryEvents = new MemoryEvents
            {
                Low = events.GetValueOrDefault("low"),
                High = events.GetValueOrDefault("high"),
                Max = events.GetValueOrDefault("max"),
                Oom = events.GetValueOrDefault("oom"),
                OomKill = events.GetValueOrDefault("oom_kill"),
            },
        };
        metrics.Hugetlb.AddRange(figures.Files.Keys
            .Where(f => f.StartsWith("hugetlb.", StringComparison.Ordinal) && f.EndsWith(".current", StringComparison.Ordinal))
            .Select(f => new HugeTlbStat
            {
                Pagesize = f.Split('.')[1],
                Current = figures.Number(f) ?? 0,
                Max = figures.Number(f.Replace(".current", ".max", StringComparison.Ordinal)) ?? 0,
            }));
        return metrics;
    }

    private static MemoryStat Memory(ContainerFigures figures)
    {
        IReadOnlyDictionary<string, ulong> stat = figures.Table("memory.stat");
        ulong value(string name) => stat.GetValueOrDefault(name);
        return new MemoryStat
        {
            Anon = value("anon"),
            File = value("file"),
            KernelStack = value("kernel_stack"),
            Slab = value("slab"),
            Sock = value("sock"),
            Shmem = value("shmem"),
            FileMapped = value("file_mapped"),
            FileDirty = value("file_dirty"),
            FileWriteback = value("file_writeback"),
            AnonThp = value("anon_thp"),
            InactiveAnon = value("inactive_anon"),
            ActiveAnon = value("active_anon"),
            InactiveFile = value("inactive_file"),
            ActiveFile = value("active_file"),
            Unevictable = value("unevictable"),
            SlabReclaimable = value("slab_reclaimable"),
            SlabUnreclaimable = value("slab_unreclaimable"),
            Pgfault = value("pgfault"),
            Pgmajfault = value("pgmajfault"),
            Usage = figures.Number("memory.current") ?? 0,
            UsageLimit = figures.Number("memory.max") ?? 0,
            MaxUsage = figures.Number("memory.peak") ?? 0,
            SwapUsage = figures.Number("memory.swap.current") ?? 0,
            SwapLimit = figures.Number("memory.swap.max") ?? 0,
        };
    }

    private static IOStat BlockIo(ContainerFigures figures)
    {
        IOStat stat = new();
        foreach (IGrouping<(ulong Major, ulong Minor), (ulong Major, ulong Minor, string Key, ulong Value)> device in
                 figures.Devices("io.stat").GroupBy(v => (v.Major, v.Minor)))
        {
            ulong value(string key) => device.FirstOrDefault(v => v.Key == key).Value;
            stat.Usage.Add(new IOEntry
            {
                Major = device.Key.Major,
                Minor = device.Key.Minor,
                Rbytes = value("rbytes"),
                Wbytes = value("wbytes"),
                Rios = value("rios"),
                Wios = value("wios"),
            });
        }

        return stat;
    }
}
