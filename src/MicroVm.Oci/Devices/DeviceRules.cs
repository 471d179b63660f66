using MicroVm.Oci.Config;

namespace MicroVm.Oci.Devices;

/// <summary>Resolves <c>linux.resources.devices</c>.</summary>
public static class DeviceRules
{
    /// <summary>What runc allows every container, after the bundle's own rules.</summary>
    public static readonly IReadOnlyList<DeviceAccessRule> Defaults =
    [
        new(true, DeviceType.Character, -1, -1, DeviceAccess.MakeNode),
        new(true, DeviceType.Block, -1, -1, DeviceAccess.MakeNode),
        new(true, DeviceType.Character, 1, 3, DeviceAccess.All),
        new(true, DeviceType.Character, 1, 8, DeviceAccess.All),
        new(true, DeviceType.Character, 1, 7, DeviceAccess.All),
        new(true, DeviceType.Character, 5, 0, DeviceAccess.All),
        new(true, DeviceType.Character, 1, 5, DeviceAccess.All),
        new(true, DeviceType.Character, 1, 9, DeviceAccess.All),
        new(true, DeviceType.Character, 5, 1, DeviceAccess.All),
        new(true, DeviceType.Character, 136, -1, DeviceAccess.All),
        new(true, DeviceType.Character, 5, 2, DeviceAccess.All),
        new(true, DeviceType.Character, 10, 200, DeviceAccess.All),
    ];

    /// <summary>The bundle's rules followed by <see cref="Defaults"/>; what none covers is denied.</summary>
    /// <exception cref="SpecException">A rule is malformed.</exception>
    public static List<DeviceAccessRule> Resolve(IReadOnlyList<DeviceRule>? rules)
    {
        List<DeviceAccessRule> resolved = [];
        for (int i = 0; i < (rules?.Count ?? 0); i++)
        {
            string where = $"linux.resources.devices[{i}]";
            DeviceRule rule = rules![i] ?? throw new SpecException($"{where} must not be null");
            resolved.Add(new DeviceAccessRule(
                rule.Allow ?? false,
                Type(where, rule.Type),
                Number($"{where}.major", rule.Major),
                Number($"{where}.minor", rule.Minor),
                Access(where, rule.Access)));
        }

        resolved.AddRange(Defaults);
        return resolved;
    }

    private static DeviceType Type(string where, string? type) => type switch
    {
        null or "" or "a" => DeviceType.Any,
        "b" => DeviceType.Block,
        "c" or "u" => DeviceType.Character,
        _ => throw new SpecException($"{where}.type: invalid cgroup device type {type}"),
    };

    private static int Number(string where, long? value) =>
        value is null or -1 ? -1
        : value is >= 0 and <= int.MaxValue ? (int)value.Value
        : throw new SpecException($"{where}: {value} is not a device number");

    private static DeviceAccess Access(string where, string? access)
    {
        if (string.IsNullOrEmpty(access))
        {
            return DeviceAccess.All;
        }

        DeviceAccess mask = DeviceAccess.None;
        foreach (char c in access)
        {
            mask |= c switch
            {
                'r' => DeviceAccess.Read,
                'w' => DeviceAccess.Write,
                'm' => DeviceAccess.MakeNode,

                // As runc: other letters beside one of these are passed over.
                _ => DeviceAccess.None,
            };
        }

        return mask != DeviceAccess.None ? mask : throw new SpecException($"{where}.access: invalid device access \"{access}\", it has none of r, w and m");
    }
}
