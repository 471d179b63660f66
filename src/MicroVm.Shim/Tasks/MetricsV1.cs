using MicroVm.Sandbox.Runtime;
using MicroVm.Shim.Api.CgroupsV1;

namespace MicroVm.Shim.Tasks;

/// <summary>Figures of cgroup v2 files under the names of version 1.</summary>
internal static class MetricsV1
{
    private const ulong NanosecondsPerMicrosecond = 1000;

    internal static Api.CgroupsV1.Metrics Of(ContainerFigures figures)
    {
        IReadOnlyDictionary<string, ulong> cpu = figures.Table("cpu.stat");
        Api.CgroupsV1.Metrics metrics = new()
        {
            Pids = new PidsStat { Current = figures.Number("pids.current") ?? 0, Limit = Limit(figures.Number("pids.max")) },
            Cpu = new CPUStat
            {
                Usage = new CPUUsage
                {
                    Total = cpu.GetValueOrDefault("usage_usec") * NanosecondsPerMicrosecond,
                    Kernel = cpu.GetValueOrDefault("system_usec") * NanosecondsPerMicrosecond,
                    User = cpu.GetValueOrDefault("user_usec") * NanosecondsPerMicrosecond,
                },
                Throttling = new Throttle
                {
                    Periods = cpu.GetValueOrDefault("nr_periods"),
                    ThrottledPeriods = cpu.GetValueOrDefault("nr_throttled"),
                    ThrottledTime = cpu.GetValueOrDefault("throttled_usec") * NanosecondsPerMicrosecond,
                },
            },
            Memory = Memory(figures),
            Blkio = BlockIo(figures),
            MemoryOomControl = new MemoryOomControl { OomKill = figures.Table("memory.events").GetValueOrDefault("oom_kill") },
        };
        metrics.Network.AddRange(figures.Interfaces.Select(i => new NetworkStat
        {
            Name = i.Name,
            RxBytes = i.RxBytes,
            RxPackets = i.RxPackets,
            RxErrors = i.RxErrors,
            RxDropped = i.RxDropped,
            TxBytes = i.TxBytes,
            TxPackets = i.TxPackets,
            TxErrors = i.TxErrors,
            TxDropped = i.TxDropped,
        }));
        metrics.Hugetlb.AddRange(figures.Files.Keys
            .Where(f => f.StartsWith("hugetlb.", StringComparison.Ordinal) && f.EndsWith(".current", StringComparison.Ordinal))
            .Select(f => new HugetlbStat { Pagesize = f.Split('.')[1], Usage = figures.Number(f) ?? 0 }));
        return metrics;
    }

    private static MemoryStat Memory(ContainerFigures figures)
    {
        IReadOnlyDictionary<string, ulong> stat = figures.Table("memory.stat");
        ulong value(string name) => stat.GetValueOrDefault(name);
        ulong usage = figures.Number("memory.current") ?? 0;
        ulong limit = figures.Number("memory.max") ?? 0;
        return new MemoryStat
        {
            Cache = value("file"),
            TotalCache = value("file"),
            Rss = value("anon"),
            TotalRss = value("anon"),
            RssHuge = value("anon_thp"),
            MappedFile = value("file_mapped"),
            TotalMappedFile = value("file_mapped"),
            Dirty = value("file_dirty"),
            TotalDirty = value("file_dirty"),
            Writeback = value("file_writeback"),
            TotalWriteback = value("file_writeback"),
            PgFault = value("pgfault"),
            TotalPgFault = value("pgfault"),
            PgMajFault = value("pgmajfault"),
            TotalPgMajFault = value("pgmajfault"),
            InactiveAnon = value("inactive_anon"),
            TotalInactiveAnon = value("inactive_anon"),
            ActiveAnon = value("active_anon"),
            TotalActiveAnon = value("active_anon"),
            InactiveFile = value("inactive_file"),
            TotalInactiveFile = value("inactive_file"),
            ActiveFile = value("active_file"),
            TotalActiveFile = value("active_file"),
            Unevictable = value("unevictable"),
            TotalUnevictable = value("unevictable"),
            HierarchicalMemoryLimit = limit,
            Usage = new MemoryEntry
            {
                Usage = usage,
                Limit = limit,
                Max = figures.Number("memory.peak") ?? 0,
                Failcnt = figures.Table("memory.events").GetValueOrDefault("max"),
            },

            // Version 1 counts memory and swap together.
            Swap = figures.Number("memory.swap.current") is { } swap ? new MemoryEntry { Usage = swap + usage, Limit = figures.Number("memory.swap.max") ?? 0 } : null,
            Kernel = new MemoryEntry { Usage = value("kernel") },
            KernelTcp = new MemoryEntry { Usage = value("sock") },
        };
    }

    private static BlkIOStat BlockIo(ContainerFigures figures)
    {
        BlkIOStat stat = new();
        foreach ((ulong major, ulong minor, string key, ulong value) in figures.Devices("io.stat"))
        {
            string operation = key is "rbytes" or "rios" ? "Read" : "Write";
            BlkIOEntry entry = new() { Major = major, Minor = minor, Op = operation, Value = value };
            switch (key)
            {
                case "rbytes" or "wbytes":
                    stat.IoServiceBytesRecursive.Add(entry);
                    break;
                case "rios" or "wios":
                    stat.IoServicedRecursive.Add(entry);
                    break;
            }
        }

        return stat;
    }

    private static ulong Limit(ulong? value) => value is null or ulong.MaxValue ? 0 : value.Value;
}
