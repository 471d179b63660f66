using System.Globalization;
using System.Text;

namespace MicroVm.Sandbox.Proxies;

/// <summary>A line of a <see cref="MountFollower"/>'s mountinfo (proc(5)).</summary>
/// <param name="Id">The mount's id, as statx(2) has it.</param>
/// <param name="Path">Where it is mounted.</param>
/// <param name="Tree">The number of the tree that it is in.</param>
/// <param name="Below">Its place below the tree's root, with a leading slash; empty for the root itself.</param>
internal sealed record MountPoint(ulong Id, string Path, int Tree, string Below)
{
    private const int IdField = 0, PathField = 4;

    /// <summary>The mounts of all trees: those at "/NUMBER" and below.</summary>
    internal static List<MountPoint> Parse(ReadOnlySpan<byte> mountInfo)
    {
        List<MountPoint> mounts = [];
        foreach (string line in Encoding.UTF8.GetString(mountInfo).Split('\n', StringSplitOptions.RemoveEmptyEntries))
        {
            string[] fields = line.Split(' ');
            if (fields.Length <= PathField || !ulong.TryParse(fields[IdField], NumberStyles.None, CultureInfo.InvariantCulture, out ulong id))
            {
                continue;
            }

            string path = Unescape(fields[PathField]);
            int slash = path.IndexOf('/', 1);
            string tree = slash < 0 ? path[1..] : path[1..slash];
            if (int.TryParse(tree, NumberStyles.None, CultureInfo.InvariantCulture, out int number))
            {
                mounts.Add(new MountPoint(id, path, number, slash < 0 ? "" : path[slash..]));
            }
        }

        return mounts;
    }

    // Space, tab, newline and backslash are \ooo there.
    private static string Unescape(string text)
    {
        if (!text.Contains('\\', StringComparison.Ordinal))
        {
            return text;
        }

        StringBuilder plain = new();
        for (int i = 0; i < text.Length; i++)
        {
            bool escaped = text[i] == '\\' && i + 3 < text.Length && text.AsSpan(i + 1, 3).IndexOfAnyExceptInRange('0', '7') < 0;
            plain.Append(escaped ? (char)(((text[i + 1] - '0') << 6) | ((text[i + 2] - '0') << 3) | (text[i + 3] - '0')) : text[i]);
            i += escaped ? 3 : 0;
        }

        return plain.ToString();
    }
}
