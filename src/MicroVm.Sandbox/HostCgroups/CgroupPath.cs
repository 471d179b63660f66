using MicroVm.Oci;

namespace MicroVm.Sandbox.HostCgroups;

/// <summary>Where <c>linux.cgroupsPath</c> lies on the host, by runc's rules.</summary>
internal static class CgroupPath
{
    private const string DefaultSlice = "system.slice";

    /// <summary>The folder in one hierarchy.</summary>
    /// <param name="hierarchy">The hierarchy.</param>
    /// <param name="cgroupsPath">As in config.json; null or empty: by the id.</param>
    /// <param name="id">The container's id.</param>
    /// <param name="systemd">It has systemd's form.</param>
    /// <exception cref="SpecException">It has not systemd's form.</exception>
    internal static string Folder(CgroupHierarchy hierarchy, string? cgroupsPath, string id, bool systemd)
    {
        string inner = systemd ? SystemdPath(cgroupsPath, id)
            : string.IsNullOrEmpty(cgroupsPath) ? id
            : cgroupsPath.StartsWith('/') ? Path.GetFullPath(cgroupsPath)
            : Path.GetFullPath(Path.Combine("/", cgroupsPath))[1..];
        if (inner.StartsWith('/'))
        {
            return Join(hierarchy.MountPoint, inner);
        }

        // A relative path is below this process's own cgroup; in version 2 beside it, since that one holds processes.
        return Own(hierarchy, hierarchy.IsUnified ? Path.GetDirectoryName(hierarchy.Own) ?? "/" : hierarchy.Own) + "/" + inner;
    }

    /// <summary>The folder of this process's own cgroup.</summary>
    internal static string OwnFolder(CgroupHierarchy hierarchy) => Own(hierarchy, hierarchy.Own);

    /// <summary>slice:prefix:name as a path: systemd's slices nest by the dashes in their names (systemd.slice(5)).</summary>
    internal static string SystemdPath(string? cgroupsPath, string id)
    {
        string[] parts = string.IsNullOrEmpty(cgroupsPath) ? ["", "microvm", id] : cgroupsPath.Split(':');
        if (parts.Length != 3 || parts.Any(p => p.Contains('/')) || parts[2].Length == 0)
        {
            throw new SpecException($"expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"{cgroupsPath}\" instead");
        }

        string slice = parts[0].Length == 0 ? DefaultSlice : parts[0];
        if (slice == "-.slice")
        {
            slice = "";
        }
        else if (!slice.EndsWith(".slice", StringComparison.Ordinal) || slice.StartsWith('-') || slice.Contains("--", StringComparison.Ordinal) || slice.EndsWith("-.slice", StringComparison.Ordinal))
        {
            throw new SpecException($"invalid slice name: {slice}");
        }

        string path = "", prefix = "";
        foreach (string part in slice.Length == 0 ? [] : slice[..^".slice".Length].Split('-'))
        {
            prefix += part;
            path += $"/{prefix}.slice";
            prefix += "-";
        }

        string unit = parts[2].EndsWith(".slice", StringComparison.Ordinal) ? parts[2]
            : parts[1].Length == 0 ? $"{parts[2]}.scope" : $"{parts[1]}-{parts[2]}.scope";
        return $"{path}/{unit}";
    }

    private static string Own(CgroupHierarchy hierarchy, string own)
    {
        string root = hierarchy.MountRoot;
        bool below = root != "/" && (own == root || own.StartsWith(root + "/", StringComparison.Ordinal));
        return Join(hierarchy.MountPoint, (below ? own[root.Length..] : own).TrimEnd('/'));
    }

    private static string Join(string mountPoint, string inner) => mountPoint.TrimEnd('/') + inner;
}
