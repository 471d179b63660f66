using System.Globalization;

namespace MicroVm.Sandbox.Templates;

/// <summary>A line of /proc/PID/maps (proc(5)).</summary>
/// <param name="Start">The first address.</param>
/// <param name="End">The address behind the last.</param>
/// <param name="Offset">Place in the file of what is at <paramref name="Start"/>.</param>
/// <param name="File">Device and inode, as the line has them.</param>
internal readonly record struct MemoryMapping(ulong Start, ulong End, ulong Offset, string File)
{
    /// <summary>Reads a line; null where it is none.</summary>
    internal static MemoryMapping? Parse(string line)
    {
        string[] fields = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        string[] range = fields.Length < 5 ? [] : fields[0].Split('-');
        return range.Length == 2 && Hex(range[0], out ulong start) && Hex(range[1], out ulong end) && start <= end && Hex(fields[2], out ulong offset)
            ? new MemoryMapping(start, end, offset, $"{fields[3]} {fields[4]}")
            : null;
    }

    private static bool Hex(string text, out ulong value) => ulong.TryParse(text, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out value);
}
