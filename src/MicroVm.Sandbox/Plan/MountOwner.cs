using System.Globalization;
using MicroVm.Oci;
using MicroVm.Oci.Config;

namespace MicroVm.Sandbox.Plan;

/// <summary>
/// Owners among a file system's options (<c>uid=</c>, <c>gid=</c>) and in sysctls. They are the container's ids, and the agent
/// acts with the guest's; a user namespace lies between.
/// </summary>
internal static class MountOwner
{
    /// <summary>The options with the guest's ids.</summary>
    /// <exception cref="SpecException">An id is not mapped.</exception>
    internal static string Map(string data, Oci.Config.Linux linux, string where)
    {
        if (data.Length == 0 || !SpecValidator.HasNamespace(linux, NamespaceTypes.User))
        {
            return data;
        }

        string[] options = data.Split(',');
        for (int i = 0; i < options.Length; i++)
        {
            int equals = options[i].IndexOf('=', StringComparison.Ordinal);
            string name = equals < 0 ? "" : options[i][..equals];
            if (name is "uid" or "gid" && uint.TryParse(options[i].AsSpan(equals + 1), NumberStyles.None, CultureInfo.InvariantCulture, out uint id))
            {
                uint mapped = Find(name == "uid" ? linux.UidMappings : linux.GidMappings, id)
                    ?? throw new SpecException($"{where}: {options[i]} is not mapped in the container's user namespace");
                options[i] = string.Create(CultureInfo.InvariantCulture, $"{name}={mapped}");
            }
        }

        return string.Join(',', options);
    }

    /// <summary>The value of a sysctl: groups of the container's in net.ipv4.ping_group_range are the guest's in the VM's network namespace.</summary>
    /// <exception cref="SpecException">A group is not mapped.</exception>
    internal static string MapGroupRange(Sysctl sysctl, Oci.Config.Linux linux)
    {
        string[] ends = sysctl.Value.Split((char[])[' ', '\t'], StringSplitOptions.RemoveEmptyEntries);
        if (sysctl.Path != "net/ipv4/ping_group_range" || ends.Length != 2 || !SpecValidator.HasNamespace(linux, NamespaceTypes.User))
        {
            return sysctl.Value;
        }

        return string.Join(' ', ends.Select(e =>
            uint.TryParse(e, NumberStyles.None, CultureInfo.InvariantCulture, out uint id) && Find(linux.GidMappings, id) is { } mapped
                ? mapped.ToString(CultureInfo.InvariantCulture)
                : throw new SpecException($"linux.sysctl net.ipv4.ping_group_range: {e} is not mapped in the container's user namespace")));
    }

    /// <summary>The guest's id of a container's id; null when none is mapped to it.</summary>
    internal static uint? Find(List<IdMapping>? mappings, uint id)
    {
        foreach (IdMapping mapping in mappings ?? [])
        {
            uint first = mapping.ContainerID ?? 0;
            if (id >= first && id - first < (mapping.Size ?? 0))
            {
                return (mapping.HostID ?? 0) + (id - first);
            }
        }

        return null;
    }
}
