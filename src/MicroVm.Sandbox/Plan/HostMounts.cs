using System.Globalization;
using MicroVm.Linux;

namespace MicroVm.Sandbox.Plan;

/// <summary>Which mounts of the calling process's namespace take part in propagation (proc(5), mountinfo); read when first asked for.</summary>
internal sealed class HostMounts
{
    private const int MaxBytes = 64 << 20;
    private HashSet<ulong>? _propagating;

    /// <summary>Whether mounts made elsewhere may appear below the mount with this id: it is shared or a slave.</summary>
    internal bool Propagates(ulong mountId) => (_propagating ??= Read()).Contains(mountId);

    private static HashSet<ulong> Read()
    {
        HashSet<ulong> ids = [];
        byte[]? text = HostFile.TryReadAllBytes("/proc/self/mountinfo", MaxBytes, out _);
        foreach (Range line in (text ?? []).AsSpan().Split((byte)'\n'))
        {
            ReadOnlySpan<byte> fields = text.AsSpan()[line];
            int end = fields.IndexOf(" - "u8), space = fields.IndexOf((byte)' ');
            if (end > 0 && (fields[..end].IndexOf(" shared:"u8) >= 0 || fields[..end].IndexOf(" master:"u8) >= 0)
                && ulong.TryParse(fields[..space], NumberStyles.None, CultureInfo.InvariantCulture, out ulong id))
            {
                ids.Add(id);
            }
        }

        return ids;
    }
}
