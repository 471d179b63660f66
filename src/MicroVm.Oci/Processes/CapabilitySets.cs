using MicroVm.Oci.Config;

namespace MicroVm.Oci.Processes;

/// <summary>The five capability sets as bit masks by capability number (linux/capability.h).</summary>
/// <param name="Bounding">Bounding set.</param>
/// <param name="Effective">Effective set.</param>
/// <param name="Inheritable">Inheritable set.</param>
/// <param name="Permitted">Permitted set.</param>
/// <param name="Ambient">Ambient set.</param>
public readonly record struct CapabilitySets(ulong Bounding, ulong Effective, ulong Inheritable, ulong Permitted, ulong Ambient)
{
    /// <summary>Names in order of their numbers.</summary>
    public static readonly IReadOnlyList<string> Names =
    [
        "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
        "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN",
        "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
        "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
        "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP",
        "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ",
        "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
    ];

    /// <summary>Resolves names. As runc, unknown ones are left out with a warning; without the member all sets are empty.</summary>
    public static CapabilitySets Resolve(CapabilityNames? names, ICollection<string> warnings)
    {
        ArgumentNullException.ThrowIfNull(warnings);
        SortedSet<string> unknown = new(StringComparer.Ordinal);
        ulong permitted = Mask(names?.Permitted, unknown), inheritable = Mask(names?.Inheritable, unknown);
        CapabilitySets sets = new(
            Mask(names?.Bounding, unknown),
            Mask(names?.Effective, unknown),
            inheritable,
            permitted,

            // The kernel raises no others, and runc lets that pass: its own default configuration asks for it.
            Mask(names?.Ambient, unknown) & permitted & inheritable);
        if (unknown.Count > 0)
        {
            warnings.Add($"ignoring unknown or unavailable capabilities: [{string.Join(' ', unknown)}]");
        }

        return sets;
    }

    private static ulong Mask(List<string>? names, SortedSet<string> unknown)
    {
        ulong mask = 0;
        foreach (string name in names ?? [])
        {
            int number = -1;
            for (int i = 0; i < Names.Count && number < 0; i++)
            {
                number = Names[i] == name ? i : -1;
            }

            if (number < 0)
            {
                unknown.Add(name ?? "null");
                continue;
            }

            mask |= 1UL << number;
        }

        return mask;
    }
}
