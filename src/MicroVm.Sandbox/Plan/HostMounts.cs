using System.Globalization;
using System.Text;
using MicroVm.Linux;

namespace MicroVm.Sandbox.Plan;

/// <summary>The mounts of the calling process's namespace (proc(5), mountinfo); read once, when first asked for.</summary>
internal sealed class HostMounts
{
    private const int MaxBytes = 64 << 20;
    private const int PathField = 4;
    private byte[]? _text;
    private HashSet<ulong>? _propagating;

    /// <summary>Those of this process.</summary>
    internal HostMounts()
    {
    }

    /// <summary>Those that a mountinfo lists.</summary>
    internal HostMounts(byte[] mountInfo) => _text = mountInfo;

    private byte[] Text => _text ??= HostFile.TryReadAllBytes("/proc/self/mountinfo", MaxBytes, out _) ?? [];

    /// <summary>Whether mounts made elsewhere may appear below the mount with this id: it is shared or a slave.</summary>
    internal bool Propagates(ulong mountId) => (_propagating ??= Propagating()).Contains(mountId);

    /// <summary>Whether something is mounted below an open directory.</summary>
    internal bool AnyBelow(SafeFd directory) =>
        File.ResolveLinkTarget($"/proc/self/fd/{directory.Value}", returnFinalTarget: false) is { } path && AnyBelow(path.FullName);

    /// <summary>Whether something is mounted below a path without links.</summary>
    internal bool AnyBelow(string path)
    {
        byte[] prefix = Encoding.UTF8.GetBytes(Escape(path.TrimEnd('/')) + "/");
        foreach (Range line in Text.AsSpan().Split((byte)'\n'))
        {
            ReadOnlySpan<byte> rest = Text.AsSpan()[line];
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

    private HashSet<ulong> Propagating()
    {
        HashSet<ulong> ids = [];
        foreach (Range line in Text.AsSpan().Split((byte)'\n'))
        {
            ReadOnlySpan<byte> fields = Text.AsSpan()[line];
            int end = fields.IndexOf(" - "u8), space = fields.IndexOf((byte)' ');
            if (end > 0 && (fields[..end].IndexOf(" shared:"u8) >= 0 || fields[..end].IndexOf(" master:"u8) >= 0)
                && ulong.TryParse(fields[..space], NumberStyles.None, CultureInfo.InvariantCulture, out ulong id))
            {
                ids.Add(id);
            }
        }

        return ids;
    }

    // As the kernel writes paths there. The backslash first: it begins the others.
    private static string Escape(string path) =>
        path.Replace("\\", "\\134", StringComparison.Ordinal).Replace(" ", "\\040", StringComparison.Ordinal)
            .Replace("\t", "\\011", StringComparison.Ordinal).Replace("\n", "\\012", StringComparison.Ordinal);
}
