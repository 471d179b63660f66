using System.Globalization;
using MicroVm.Linux;
using Proto = MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Plan;

/// <summary>
/// Settings of the guest's kernel that a process on the host would have of the host: some follow from the size of memory, as how
/// many threads and watches there may be and whether one large allocation is refused before its pages are touched, others are the
/// administrator's, as who may follow links in /tmp. The container's limits are what bounds it.
/// </summary>
internal static class GuestDefaults
{
    private const string Sysctl = "/proc/sys/";
    private const int MaxFile = 64, StrictOvercommit = 2;

    // Those of the host as they are, and what a kernel has that was not told otherwise: then none needs to be written. Linux 6.1's
    // defaults; null for those that distributions' kernels set in their own way or that follow from the size of memory.
    private static readonly (string Path, long? Default)[] OfTheHost =
    [
        ("fs/protected_symlinks", null), // and the next three: Documentation/admin-guide/sysctl/fs.rst
        ("fs/protected_hardlinks", null),
        ("fs/protected_fifos", 0),
        ("fs/protected_regular", 0),
        ("fs/inotify/max_user_watches", null), // inotify(7)
        ("fs/inotify/max_user_instances", 128),
        ("fs/inotify/max_queued_events", 16384),
        ("fs/file-max", null),
        ("fs/aio-max-nr", 65536),
        ("vm/max_map_count", 65530),
    ];

    // What a guest kernel made small (CONFIG_BASE_SMALL) takes at most: PAGE_SIZE * 8 (linux/threads.h).
    private const long MostPids = 32768;

    /// <summary>Adds the settings.</summary>
    /// <param name="sysctls">Of the plan: those of the configuration come after and win.</param>
    /// <param name="read">Reads a setting of the host by its path below /proc/sys; null when there is none.</param>
    internal static void Add(ICollection<Proto.Sysctl> sysctls, Func<string, long?> read)
    {
        void Set(string path, long value) =>
            sysctls.Add(new Proto.Sysctl { Path = path, Value = value.ToString(CultureInfo.InvariantCulture) });
        if (read("kernel/threads-max") is { } threads)
        {
            Set("kernel/threads-max", threads);
        }

        if (read("kernel/pid_max") is { } pid)
        {
            Set("kernel/pid_max", Math.Min(pid, MostPids));
        }

        // By the guest's own heuristic an allocation larger than the VM fails, where the host's kernel would grant it and kill later.
        if (read("vm/overcommit_memory") is not (null or StrictOvercommit))
        {
            Set("vm/overcommit_memory", 1);
        }

        foreach ((string path, long? usual) in OfTheHost)
        {
            if (read(path) is { } value && value != usual)
            {
                Set(path, value);
            }
        }
    }

    /// <summary>A setting of this host.</summary>
    internal static long? OfHost(string path)
    {
        try
        {
            ReadOnlySpan<byte> text = HostFile.ReadAllBytes(Sysctl + path, MaxFile);
            return long.TryParse(text.TrimEnd((byte)'\n'), NumberStyles.None, CultureInfo.InvariantCulture, out long value) ? value : null;
        }
        catch (LinuxException)
        {
            return null;
        }
    }
}
