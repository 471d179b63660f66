using System.Globalization;
using MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Proxies;

/// <summary>What is said of devices that a bundle asks for and the guest's kernel has no driver for.</summary>
internal static class MissingDevices
{
    private const int MostNamed = 8;

    /// <summary>A warning that names the devices; null when none is missing.</summary>
    /// <param name="devices">The container's devices.</param>
    /// <param name="missing">Indexes, as the guest tells them: what is out of range is passed over.</param>
    internal static string? Describe(IReadOnlyList<Device> devices, IEnumerable<uint> missing)
    {
        List<Device> all = [.. missing.Where(i => i < devices.Count).Distinct().Select(i => devices[(int)i])];
        if (all.Count == 0)
        {
            return null;
        }

        IEnumerable<string> named = all.Take(MostNamed).Select(d =>
            string.Create(CultureInfo.InvariantCulture, $"{d.Path} ({(d.Type == 'b' ? "block" : "character")} {d.Major}:{d.Minor})"));
        string more = all.Count > MostNamed ? string.Create(CultureInfo.InvariantCulture, $" and {all.Count - MostNamed} more") : "";
        return $"devices of the host that the VM does not have are left out: {string.Join(", ", named)}{more}";
    }
}
