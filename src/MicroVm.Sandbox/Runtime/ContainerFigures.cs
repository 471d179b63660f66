using System.Globalization;

namespace MicroVm.Sandbox.Runtime;

/// <summary>A container's cgroup v2 files and interfaces, read in the guest. What the guest says is not trusted to be well-formed.</summary>
/// <param name="Files">Content by file name.</param>
/// <param name="Interfaces">The container's interfaces.</param>
public sealed record ContainerFigures(IReadOnlyDictionary<string, string> Files, IReadOnlyList<InterfaceCounters> Interfaces)
{
    /// <summary>A file that holds one number; "max" is the largest. Null when it is missing or something else.</summary>
    public ulong? Number(string file) =>
        Files.TryGetValue(file, out string? text) ? text.Trim() == "max" ? ulong.MaxValue : Parse(text.Trim()) : null;

    /// <summary>A file of lines "key value".</summary>
    public IReadOnlyDictionary<string, ulong> Table(string file)
    {
        SortedDictionary<string, ulong> table = new(StringComparer.Ordinal);
        foreach (string line in Lines(file))
        {
            if (line.Split(' ') is [var key, var value] && Parse(value) is { } number)
            {
                table[key] = number;
            }
        }

        return table;
    }

    /// <summary>io.stat: a line for each device, "8:0 rbytes=1 wbytes=2".</summary>
    public IEnumerable<(ulong Major, ulong Minor, string Key, ulong Value)> Devices(string file)
    {
        foreach (string[] fields in Lines(file).Select(l => l.Split(' ')))
        {
            if (fields[0].Split(':') is not [var major, var minor] || Parse(major) is not { } a || Parse(minor) is not { } b)
            {
                continue;
            }

            foreach (string field in fields.Skip(1))
            {
                if (field.Split('=') is [var key, var text] && Parse(text) is { } value)
                {
                    yield return (a, b, key, value);
                }
            }
        }
    }

    private static ulong? Parse(string text) => ulong.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out ulong value) ? value : null;

    private string[] Lines(string file) => Files.TryGetValue(file, out string? text) ? text.Split('\n', StringSplitOptions.RemoveEmptyEntries) : [];
}
