using System.Globalization;
using MicroVm.Oci.Config;

namespace MicroVm.Oci.Cgroups;

/// <summary>One write to a file of the container's cgroup (v2).</summary>
/// <param name="File">File name, with its controller's prefix.</param>
/// <param name="Value">What is written.</param>
/// <param name="Optional">A guest whose kernel lacks the file keeps the limit all the same.</param>
public readonly record struct CgroupSetting(string File, string Value, bool Optional = false);

/// <summary>Resolves <c>linux.resources</c> to cgroup v2 settings, in the order in which they are written.</summary>
public static class CgroupSettings
{
    private const ulong DefaultPeriod = 100_000;
    private const ulong MinShares = 2, MaxShares = 262_144;

    /// <summary>
    /// Resolves the limits of a new container, or of one that is updated (<see cref="ResourcesUpdate"/>); all but the device
    /// rules. Values of cgroup v1 become those of v2 as in runc.
    /// </summary>
    /// <param name="resources">The limits.</param>
    /// <param name="warnings">Takes a line for each setting that has no effect in a VM.</param>
    /// <exception cref="SpecException">A value is out of range, or a resource cannot be limited in a VM.</exception>
    public static List<CgroupSetting> FromResources(Resources? resources, ICollection<string> warnings)
    {
        ArgumentNullException.ThrowIfNull(warnings);
        List<CgroupSetting> settings = [];
        if (resources is null)
        {
            return settings;
        }

        Pids(settings, resources.Pids);
        Memory(settings, resources.Memory, warnings);
        BlockIo(resources.BlockIO);
        Cpu(settings, resources.Cpu, warnings);
        HugePages(settings, resources.HugepageLimits);
        Refuse(resources);
        Unified(settings, resources.Unified);
        return settings;
    }

    /// <summary>
    /// cpu.weight for cgroup v1's cpu.shares: the curve of current runc and crun, on which 2, 1024 and 262144 shares are
    /// weights 1, 100 and 10000. 0 stays 0: not set.
    /// </summary>
    public static ulong CpuWeight(ulong shares)
    {
        if (shares == 0)
        {
            return 0;
        }

        double log = Math.Log2(Math.Clamp(shares, MinShares, MaxShares));
        double exponent = (((log * log) + (125 * log)) / 612.0) - (7.0 / 34.0);

        // The ends are exact except for rounding errors of the logarithm.
        return Math.Clamp((ulong)Math.Ceiling(Math.Round(Math.Pow(10, exponent), 9)), 1, 10_000);
    }

    /// <summary>memory.swap.max for cgroup v1's memory+swap limit: the total less the memory. -1 is "max", null not set.</summary>
    /// <exception cref="SpecException">The limits contradict each other.</exception>
    public static long? SwapLimit(long? limit, long? swap)
    {
        long memory = limit ?? 0, total = swap ?? 0;
        if (memory == -1 && total == 0)
        {
            return -1;
        }

        if (total == 0)
        {
            return null;
        }

        if (total < 0)
        {
            return total == -1 ? -1 : throw new SpecException($"invalid memory+swap value: {total}");
        }

        if (memory is 0 or -1)
        {
            throw new SpecException("unable to set swap limit without memory limit");
        }

        return total >= memory ? total - memory : throw new SpecException("memory+swap limit should be >= memory limit");
    }

    private static void Pids(List<CgroupSetting> settings, PidsResources? pids)
    {
        // runc: 0 is "not set".
        if (pids?.Limit is { } limit and not 0)
        {
            settings.Add(new CgroupSetting("pids.max", limit < 0 ? "max" : Text(limit)));
        }
    }

    private static void Memory(List<CgroupSetting> settings, MemoryResources? memory, ICollection<string> warnings)
    {
        if (memory is null)
        {
            return;
        }

        Check("memory.limit", memory.Limit);
        Check("memory.reservation", memory.Reservation);
        if (memory.Swappiness > 100)
        {
            throw new SpecException($"invalid value: {memory.Swappiness}. valid memory swappiness range is 0-100");
        }

        // Only checked: a VM has no swap, so that every limit of it is kept.
        _ = SwapLimit(memory.Limit, memory.Swap);
        Add(settings, "memory.max", memory.Limit);
        Add(settings, "memory.low", memory.Reservation);
        WarnIf(warnings, memory.Kernel is not (null or 0 or -1), "memory.kernel");
        WarnIf(warnings, memory.KernelTCP is not (null or 0 or -1), "memory.kernelTCP");
        WarnIf(warnings, memory.Swappiness is not null, "memory.swappiness");
        WarnIf(warnings, memory.DisableOOMKiller == true, "memory.disableOOMKiller");

        static void Check(string name, long? value)
        {
            if (value < -1)
            {
                throw new SpecException($"linux.resources.{name}: invalid memory value: {value}");
            }
        }

        static void Add(List<CgroupSetting> settings, string file, long? value)
        {
            if (value is not (null or 0))
            {
                settings.Add(new CgroupSetting(file, value == -1 ? "max" : Text(value.Value)));
            }
        }
    }

    // Only checked: a container's files come from the VMM, whose I/O the host's cgroup limits.
    private static void BlockIo(BlockIoResources? io)
    {
        foreach (ushort? weight in (io?.WeightDevice ?? []).Select(d => d?.Weight).Prepend(io?.Weight))
        {
            if (weight is not (null or 0 or (>= 10 and <= 1000)))
            {
                throw new SpecException($"linux.resources.blockIO: weight {weight} is out of range: 10 to 1000");
            }
        }
    }

    private static void Cpu(List<CgroupSetting> settings, CpuResources? cpu, ICollection<string> warnings)
    {
        if (cpu is null)
        {
            return;
        }

        if (cpu.Idle is { } idle)
        {
            settings.Add(new CgroupSetting("cpu.idle", idle is 0 or 1 ? Text(idle) : throw new SpecException($"linux.resources.cpu.idle must be 0 or 1, it is {idle}")));
        }

        // The kernel refuses a weight for an idle cgroup.
        if (CpuWeight(cpu.Shares ?? 0) is var weight and not 0 && cpu.Idle != 1)
        {
            settings.Add(new CgroupSetting("cpu.weight", Text((long)weight)));
        }

        if (cpu.Quota is not (null or 0) || cpu.Period is not (null or 0))
        {
            string quota = cpu.Quota > 0 ? Text(cpu.Quota.Value) : "max";
            ulong period = cpu.Period is null or 0 ? DefaultPeriod : cpu.Period.Value;
            settings.Add(new CgroupSetting("cpu.max", $"{quota} {period.ToString(CultureInfo.InvariantCulture)}"));
        }

        if (cpu.Burst is { } burst)
        {
            settings.Add(new CgroupSetting("cpu.max.burst", burst.ToString(CultureInfo.InvariantCulture)));
        }

        if (CpuSet.Parse(cpu.Mems, "linux.resources.cpu.mems").Count > 0)
        {
            warnings.Add("linux.resources.cpu.mems has no effect: a VM's memory is not bound to nodes of the host");
        }

        WarnIf(warnings, cpu.RealtimeRuntime is not (null or 0), "cpu.realtimeRuntime");
        WarnIf(warnings, cpu.RealtimePeriod is not (null or 0), "cpu.realtimePeriod");
    }

    private static void HugePages(List<CgroupSetting> settings, List<HugepageLimit>? limits)
    {
        foreach (HugepageLimit limit in limits ?? [])
        {
            string size = limit?.PageSize ?? "";
            if (!size.EndsWith('B') || size.Length < 3 || !"KMG".Contains(size[^2]) || !size[..^2].All(char.IsAsciiDigit))
            {
                throw new SpecException($"linux.resources.hugepageLimits: page size \"{size}\" is not of the form 2MB");
            }

            // As runc, with what is reserved, too. A kernel without pages of a size has no files for them.
            string value = (limit!.Limit ?? 0).ToString(CultureInfo.InvariantCulture);
            settings.Add(new CgroupSetting($"hugetlb.{size}.max", value, Optional: true));
            settings.Add(new CgroupSetting($"hugetlb.{size}.rsvd.max", value, Optional: true));
        }
    }

    private static void Refuse(Resources resources)
    {
        if (resources.Rdma is { Count: > 0 })
        {
            throw SpecException.Unsupported("linux.resources.rdma", "a VM has no RDMA device");
        }

        if (resources.Network is { ClassID: not (null or 0) })
        {
            throw SpecException.Unsupported("linux.resources.network.classID", "cgroup v2 has no net_cls controller");
        }

        if (resources.Network is { Priorities.Count: > 0 })
        {
            throw SpecException.Unsupported("linux.resources.network.priorities", "cgroup v2 has no net_prio controller");
        }
    }

    private static void Unified(List<CgroupSetting> settings, SortedDictionary<string, string>? unified)
    {
        foreach ((string file, string value) in unified ?? [])
        {
            if (file.Contains('/') || !file.Contains('.') || file.StartsWith('.'))
            {
                throw new SpecException($"unified resource \"{file}\" must be a file name (no slashes) such as memory.high");
            }

            // A VM has no swap, so that every limit of it is kept.
            bool optional = file.StartsWith("memory.swap.", StringComparison.Ordinal) || file.StartsWith("memory.zswap.", StringComparison.Ordinal);

            // A file of several lines is written line by line.
            foreach (string line in (value ?? "").Split('\n', StringSplitOptions.RemoveEmptyEntries))
            {
                settings.Add(new CgroupSetting(file, line, optional));
            }
        }
    }

    private static void WarnIf(ICollection<string> warnings, bool condition, string name)
    {
        if (condition)
        {
            warnings.Add($"linux.resources.{name} is ignored: cgroup v2 has no such setting");
        }
    }

    private static string Text(long value) => value.ToString(CultureInfo.InvariantCulture);
}
