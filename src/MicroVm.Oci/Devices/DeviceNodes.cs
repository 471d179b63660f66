using MicroVm.Oci.Config;

namespace MicroVm.Oci.Devices;

/// <summary>A device node to make. <paramref name="Type"/> is 'c', 'b' or 'p'; <paramref name="Mode"/> permission bits.</summary>
public readonly record struct DeviceNode(string Path, char Type, uint Major, uint Minor, uint Mode, uint Uid, uint Gid);

/// <summary>Resolves <c>linux.devices</c>.</summary>
public static class DeviceNodes
{
    private const uint DefaultMode = 0b110_110_110;
    private const uint ModeMask = 0b111_111_111_111;

    // Linux has 12 bits of major and 20 of minor numbers.
    private const long MaxMajor = 4095, MaxMinor = 1048575;

    /// <summary>What every container has, unless the bundle has a device of its own there.</summary>
    public static readonly IReadOnlyList<DeviceNode> Defaults =
    [
        new("/dev/null", 'c', 1, 3, DefaultMode, 0, 0),
        new("/dev/random", 'c', 1, 8, DefaultMode, 0, 0),
        new("/dev/full", 'c', 1, 7, DefaultMode, 0, 0),
        new("/dev/tty", 'c', 5, 0, DefaultMode, 0, 0),
        new("/dev/zero", 'c', 1, 5, DefaultMode, 0, 0),
        new("/dev/urandom", 'c', 1, 9, DefaultMode, 0, 0),
    ];

    /// <summary>The bundle's devices and then the defaults.</summary>
    /// <exception cref="SpecException">A device is malformed.</exception>
    public static List<DeviceNode> Resolve(IReadOnlyList<Device>? devices)
    {
        List<DeviceNode> nodes = [];
        for (int i = 0; i < (devices?.Count ?? 0); i++)
        {
            string where = $"linux.devices[{i}]";
            Device device = devices![i] ?? throw new SpecException($"{where} must not be null");
            if (device.Path is not ['/', _, ..])
            {
                throw new SpecException($"{where}.path must be an absolute path, it is \"{device.Path}\"");
            }

            char type = device.Type switch
            {
                "c" or "u" => 'c',
                "b" => 'b',
                "p" => 'p',
                _ => throw new SpecException($"{where}.type: invalid device type \"{device.Type}\" of {device.Path}"),
            };
            if (type != 'p' && (device.Major is not (>= 0 and <= MaxMajor) || device.Minor is not (>= 0 and <= MaxMinor)))
            {
                throw new SpecException($"{where}: {device.Path} needs a major number of 0 to {MaxMajor} and a minor number of 0 to {MaxMinor}");
            }

            nodes.Add(new DeviceNode(
                device.Path,
                type,
                type == 'p' ? 0 : (uint)device.Major!.Value,
                type == 'p' ? 0 : (uint)device.Minor!.Value,
                (device.FileMode ?? DefaultMode) & ModeMask,
                device.Uid ?? 0,
                device.Gid ?? 0));
        }

        HashSet<string> own = [.. nodes.Select(n => n.Path)];
        nodes.AddRange(Defaults.Where(d => !own.Contains(d.Path)));
        return nodes;
    }
}
