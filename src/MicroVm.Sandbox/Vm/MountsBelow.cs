using System.Text;
using MicroVm.Linux;

namespace MicroVm.Sandbox.Vm;

/// <summary>Tells whether something is mounted below a directory (proc(5), mountinfo).</summary>
internal static class MountsBelow
{
    private const int MaxBytes = 64 << 20;
    private const int PathField = 4;

    /// <summary>Whether the calling process's mount namespace has a mount below the open directory.</summary>
    internal static bool Exist(SafeFd directory) =>
        File.ResolveLinkTarget($"/proc/self/fd/{directory.Value}", returnFinalTarget: false) is { } path
        && Exist(path.FullName, HostFile.TryReadAllBytes("/proc/self/mountinfo", MaxBytes, out _) ?? []);

    /// <summary>Whether a mountinfo has a mount below a path.</summary>
    internal static bool Exist(string path, ReadOnlySpan<byte> mountInfo)
    {
        byte[] prefix = Encoding.UTF8.GetBytes(Escape(path.TrimEnd('/')) + "/");
        foreach (Range line in mountInfo.Split((byte)'\n'))
        {
            ReadOnlySpan<byte> rest = mountInfo[line];
            for (int field = 0; field < PathField && !rest.IsEmpty; field++)
            {
                rest = rest[(rest.IndexOf((byte)' ') + 1)..];
            }

            if (rest.StartsWith(prefix))
            {
                return true;
            }
        }

        return false;
    }

    // The backslash first: it begins the others.
    private static string Escape(string path) =>
        path.Replace("\\", "\\134", StringComparison.Ordinal).Replace(" ", "\\040", StringComparison.Ordinal)
            .Replace("\t", "\\011", StringComparison.Ordinal).Replace("\n", "\\012", StringComparison.Ordinal);
}
