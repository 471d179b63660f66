using System.Globalization;
using MicroVm.Linux;
using Proto = MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Plan;

/// <summary>
/// Settings of the guest's kernel that follow from the size of its memory, and that a process on the host would have of the host:
/// how many threads and process ids there may be, and whether one large allocation is refused before its pages are touched. The
/// container's limits are what bounds it.
/// </summary>
internal static class GuestDefaults
{
    private const string Sysctl = "/proc/sys/";
    private const int MaxFile = 64, StrictOvercommit = 2;

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
