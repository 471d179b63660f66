using System.Globalization;

namespace MicroVm.VmmControl;

/// <summary>
/// Where a guest finds an export: in the folder of its host file system, named <c>major:minor</c>, which the guest's kernel
/// mounts as a file system of its own. Host and VMM form the name each from st_dev.
/// </summary>
public static class FsExportName
{
    /// <summary>Longest name of a device, in bytes.</summary>
    public const int LongestDevice = 21;

    /// <summary>The path of an export in the virtio-fs device's root directory.</summary>
    /// <param name="major">Major number of st_dev.</param>
    /// <param name="minor">Minor number of st_dev.</param>
    /// <param name="name">The export's name.</param>
    public static string PathOf(uint major, uint minor, string name) =>
        string.Create(CultureInfo.InvariantCulture, $"{major}:{minor}/{name}");

    /// <summary>Writes the name of a device's folder; allocates nothing.</summary>
    /// <param name="device">Major number in the upper, minor in the lower 32 bits.</param>
    /// <param name="text">Room for <see cref="LongestDevice"/> characters.</param>
    /// <param name="length">How many were written.</param>
    public static bool TryFormatDevice(ulong device, Span<char> text, out int length) =>
        text.TryWrite(CultureInfo.InvariantCulture, $"{device >> 32}:{(uint)device}", out length);
}
