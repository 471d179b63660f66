using System.Text;
using MicroVm.Linux;

namespace MicroVm.Sandbox.HostCgroups;

/// <summary>A mounted cgroup file system of the host.</summary>
/// <param name="Controllers">Version 1: its controllers and name; version 2: empty.</param>
/// <param name="MountPoint">Where it is mounted.</param>
/// <param name="MountRoot">Which cgroup is seen there: "/" but in containers.</param>
/// <param name="Own">This process's cgroup, by its path in the hierarchy.</param>
internal sealed record CgroupHierarchy(IReadOnlyList<string> Controllers, string MountPoint, string MountRoot, string Own)
{
    private const int MaxFile = 4 << 20;

    /// <summary>Version 2.</summary>
    internal bool IsUnified => Controllers.Count == 0;

    /// <summary>The hierarchies of this host; of several mounts of one the first.</summary>
    /// <exception cref="LinuxException">/proc is not mounted.</exception>
    internal static IReadOnlyList<CgroupHierarchy> Find() => Parse(
        Encoding.UTF8.GetString(HostFile.ReadAllBytes("/proc/self/mountinfo", MaxFile)),
        Encoding.UTF8.GetString(HostFile.ReadAllBytes("/proc/self/cgroup", MaxFile)));

    /// <summary>Parses proc(5)'s <c>mountinfo</c> and cgroups(7)'s <c>/proc/self/cgroup</c>.</summary>
    internal static IReadOnlyList<CgroupHierarchy> Parse(string mountInfo, string ownCgroups)
    {
        Dictionary<string, string> own = [];
        foreach (string line in ownCgroups.Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] fields = line.Split(':', 3);
            if (fields.Length == 3)
            {
                own[Key(fields[1].Split(',', StringSplitOptions.RemoveEmptyEntries))] = fields[2];
            }
        }

        Dictionary<string, CgroupHierarchy> found = [];
        foreach (string line in mountInfo.Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] halves = line.Split(" - ", 2);
            string[] mount = halves[0].Split(' '), type = halves.Length == 2 ? halves[1].Split(' ') : [];
            if (mount.Length < 5 || type.Length < 3 || type[0] is not ("cgroup" or "cgroup2"))
            {
                continue;
            }

            // The options also tell how it is mounted; what is no controller of this process's list is such.
            string[] controllers = type[0] == "cgroup2" ? [] : [.. type[2].Split(',').Where(o => own.Keys.Any(k => k.Split(',').Contains(o)))];
            string key = Key(controllers);
            if (own.TryGetValue(key, out string? path))
            {
                found.TryAdd(key, new CgroupHierarchy(controllers, Unescape(mount[4]), Unescape(mount[3]), path));
            }
        }

        return [.. found.Values];
    }

    private static string Key(IEnumerable<string> controllers) => string.Join(',', controllers.Order(StringComparer.Ordinal));

    private static string Unescape(string text) => text.Replace("\\040", " ", StringComparison.Ordinal).Replace("\\134", "\\", StringComparison.Ordinal);
}
