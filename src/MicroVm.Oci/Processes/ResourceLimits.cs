using MicroVm.Oci.Config;

namespace MicroVm.Oci.Processes;

/// <summary>A resource limit by its RLIMIT_* number.</summary>
public readonly record struct ResourceLimit(uint Resource, ulong Soft, ulong Hard)
{
    /// <summary>RLIMIT_NOFILE.</summary>
    public const uint OpenFiles = 7;

    /// <summary>fs.nr_open of a kernel that was not told otherwise (fs/file.c, sysctl_nr_open).</summary>
    public const ulong DefaultMostOpenFiles = 1024 * 1024;

    /// <summary>The most that fs.nr_open takes (fs/file.c, sysctl_nr_open_max).</summary>
    public const ulong MaxMostOpenFiles = int.MaxValue & ~63UL;

    /// <summary>Names by number (asm-generic/resource.h).</summary>
    public static readonly IReadOnlyList<string> Names =
    [
        "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC",
        "RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE",
        "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
    ];

    /// <summary>Resolves <c>process.rlimits</c>.</summary>
    /// <exception cref="SpecException">A name is unknown or given twice, or a soft limit exceeds its hard limit.</exception>
    public static List<ResourceLimit> Resolve(IReadOnlyList<Rlimit>? limits)
    {
        List<ResourceLimit> resolved = [];
        for (int i = 0; i < (limits?.Count ?? 0); i++)
        {
            Rlimit limit = limits![i] ?? throw new SpecException($"process.rlimits[{i}] must not be null");
            uint resource = Number(i, limit.Type);
            if (resolved.Exists(r => r.Resource == resource))
            {
                throw new SpecException($"process.rlimits[{i}]: {limit.Type} is given twice");
            }

            ulong soft = limit.Soft ?? 0, hard = limit.Hard ?? 0;
            if (soft > hard)
            {
                throw new SpecException($"process.rlimits[{i}]: the soft limit {soft} of {limit.Type} is greater than the hard limit {hard}");
            }

            resolved.Add(new ResourceLimit(resource, soft, hard));
        }

        return resolved;
    }

    private static uint Number(int index, string? name)
    {
        for (int i = 0; i < Names.Count; i++)
        {
            if (Names[i] == name)
            {
                return (uint)i;
            }
        }

        throw new SpecException($"process.rlimits[{index}]: wrong rlimit value: {name}");
    }
}
