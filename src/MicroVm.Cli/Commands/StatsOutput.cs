using System.Buffers;
using System.Text;
using System.Text.Json;
using MicroVm.Sandbox.Runtime;

namespace MicroVm.Cli.Commands;

/// <summary>runc's events: one JSON object on a line. Its members are runc's, the figures are the guest's cgroup v2.</summary>
internal static class StatsOutput
{
    private const int NanosecondsPerMicrosecond = 1000;

    /// <summary>An event of type oom.</summary>
    internal static string OutOfMemory(string id) => Line(id, "oom", _ => { });

    /// <summary>An event of type stats.</summary>
    internal static string Stats(string id, ContainerFigures figures) => Line(id, "stats", json =>
    {
        json.WriteStartObject("data");
        Cpu(json, figures.Table("cpu.stat"));
        Cpuset(json, figures);
        Memory(json, figures);
        json.WriteStartObject("pids");
        Optional(json, "current", figures.Number("pids.current"));
        Optional(json, "limit", figures.Number("pids.max") is ulong.MaxValue ? null : figures.Number("pids.max"));
        json.WriteEndObject();
        BlockIo(json, figures);
        HugePages(json, figures);
        json.WriteStartObject("intel_rdt");
        json.WriteEndObject();
        Interfaces(json, figures.Interfaces);
        json.WriteEndObject();
    });

    private static string Line(string id, string type, Action<Utf8JsonWriter> data)
    {
        ArrayBufferWriter<byte> buffer = new();
        using (Utf8JsonWriter json = new(buffer))
        {
            json.WriteStartObject();
            json.WriteString("type", type);
            json.WriteString("id", id);
            data(json);
            json.WriteEndObject();
        }

        return Encoding.UTF8.GetString(buffer.WrittenSpan) + "\n";
    }

    private static void Cpu(Utf8JsonWriter json, IReadOnlyDictionary<string, ulong> stat)
    {
        json.WriteStartObject("cpu");
        json.WriteStartObject("usage");
        json.WriteNumber("total", stat.GetValueOrDefault("usage_usec") * NanosecondsPerMicrosecond);
        json.WriteNumber("kernel", stat.GetValueOrDefault("system_usec") * NanosecondsPerMicrosecond);
        json.WriteNumber("user", stat.GetValueOrDefault("user_usec") * NanosecondsPerMicrosecond);
        json.WriteEndObject();
        json.WriteStartObject("throttling");
        Optional(json, "periods", stat.GetValueOrDefault("nr_periods"));
        Optional(json, "throttledPeriods", stat.GetValueOrDefault("nr_throttled"));
        Optional(json, "throttledTime", stat.GetValueOrDefault("throttled_usec") * NanosecondsPerMicrosecond);
        json.WriteEndObject();
        json.WriteEndObject();
    }

    private static void Cpuset(Utf8JsonWriter json, ContainerFigures figures)
    {
        json.WriteStartObject("cpuset");
        IReadOnlyList<int> cpus = [];
        try
        {
            cpus = Oci.Cgroups.CpuSet.Parse(figures.Files.GetValueOrDefault("cpuset.cpus.effective")?.Trim(), "cpuset.cpus.effective");
        }
        catch (Oci.SpecException)
        {
            // Nothing that a kernel writes.
        }

        if (cpus.Count > 0)
        {
            json.WriteStartArray("cpus");
            cpus.ToList().ForEach(c => json.WriteNumberValue(c));
            json.WriteEndArray();
        }

        foreach (string name in (string[])["cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page", "memory_spread_slab", "memory_pressure", "sched_load_balance", "sched_relax_domain_level"])
        {
            json.WriteNumber(name, 0);
        }

        json.WriteEndObject();
    }

    private static void Memory(Utf8JsonWriter json, ContainerFigures figures)
    {
        IReadOnlyDictionary<string, ulong> stat = figures.Table("memory.stat");
        json.WriteStartObject("memory");
        Optional(json, "cache", stat.GetValueOrDefault("file"));
        Entry(json, "usage", figures.Number("memory.max"), figures.Number("memory.current"), figures.Number("memory.peak"), figures.Table("memory.events").GetValueOrDefault("max"));

        // As in cgroup v1, runc's figures of swap are of memory and swap together.
        ulong? swap = figures.Number("memory.swap.current") is { } s ? s + (figures.Number("memory.current") ?? 0) : null;
        Entry(json, "swap", figures.Number("memory.swap.max"), swap, null, 0);
        Entry(json, "kernel", null, stat.GetValueOrDefault("kernel"), null, 0);
        Entry(json, "kernelTCP", null, stat.GetValueOrDefault("sock"), null, 0);
        json.WriteStartObject("raw");
        foreach ((string key, ulong value) in stat)
        {
            json.WriteNumber(key, value);
        }

        json.WriteEndObject();
        json.WriteEndObject();
    }

    private static void Entry(Utf8JsonWriter json, string name, ulong? limit, ulong? usage, ulong? max, ulong failures)
    {
        json.WriteStartObject(name);
        json.WriteNumber("limit", limit ?? 0);
        Optional(json, "usage", usage);
        Optional(json, "max", max);
        json.WriteNumber("failcnt", failures);
        json.WriteEndObject();
    }

    private static void BlockIo(Utf8JsonWriter json, ContainerFigures figures)
    {
        json.WriteStartObject("blkio");
        foreach ((string name, (string Key, string Operation)[] keys) in new[]
        {
            ("ioServiceBytesRecursive", new[] { ("rbytes", "Read"), ("wbytes", "Write") }),
            ("ioServicedRecursive", new[] { ("rios", "Read"), ("wios", "Write") }),
        })
        {
            List<(ulong Major, ulong Minor, string Key, ulong Value)> values = [.. figures.Devices("io.stat").Where(v => keys.Any(k => k.Key == v.Key))];
            if (values.Count == 0)
            {
                continue;
            }

            json.WriteStartArray(name);
            foreach ((ulong major, ulong minor, string key, ulong value) in values)
            {
                json.WriteStartObject();
                Optional(json, "major", major);
                Optional(json, "minor", minor);
                json.WriteString("op", keys.First(k => k.Key == key).Operation);
                Optional(json, "value", value);
                json.WriteEndObject();
            }

            json.WriteEndArray();
        }

        json.WriteEndObject();
    }

    private static void HugePages(Utf8JsonWriter json, ContainerFigures figures)
    {
        json.WriteStartObject("hugetlb");
        foreach (string file in figures.Files.Keys.Where(f => f.StartsWith("hugetlb.", StringComparison.Ordinal) && f.EndsWith(".current", StringComparison.Ordinal)))
        {
            json.WriteStartObject(file.Split('.')[1]);
            Optional(json, "usage", figures.Number(file));
            json.WriteNumber("failcnt", figures.Table(file.Replace(".current", ".events", StringComparison.Ordinal)).GetValueOrDefault("max"));
            json.WriteEndObject();
        }

        json.WriteEndObject();
    }

    private static void Interfaces(Utf8JsonWriter json, IReadOnlyList<InterfaceCounters> interfaces)
    {
        json.WriteStartArray("network_interfaces");
        foreach (InterfaceCounters i in interfaces)
        {
            json.WriteStartObject();
            json.WriteString("Name", i.Name);
            foreach ((string name, ulong value) in new[]
            {
                ("RxBytes", i.RxBytes), ("RxPackets", i.RxPackets), ("RxErrors", i.RxErrors), ("RxDropped", i.RxDropped),
                ("TxBytes", i.TxBytes), ("TxPackets", i.TxPackets), ("TxErrors", i.TxErrors), ("TxDropped", i.TxDropped),
            })
            {
                json.WriteNumber(name, value);
            }

            json.WriteEndObject();
        }

        json.WriteEndArray();
    }

    // As Go's omitempty.
    private static void Optional(Utf8JsonWriter json, string name, ulong? value)
    {
        if (value is > 0)
        {
            json.WriteNumber(name, value.Value);
        }
    }
}
