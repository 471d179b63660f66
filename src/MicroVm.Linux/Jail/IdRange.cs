namespace MicroVm.Linux.Jail;

/// <summary>User or group ids, as the host counts them.</summary>
/// <param name="First">The first.</param>
/// <param name="Count">How many.</param>
public readonly record struct IdRange(uint First, uint Count)
{
    // UID_GID_MAP_MAX_EXTENTS of linux/user_namespace.h.
    private const int MaxRanges = 340;
    private const ulong Ids = uint.MaxValue;

    /// <summary>
    /// The content of uid_map or gid_map (user_namespaces(7)) that maps each id of <paramref name="ranges"/>, and
    /// <paramref name="own"/>, to itself. Ids are 0 to 2^32 - 2; ranges may touch and overlap.
    /// </summary>
    /// <exception cref="ArgumentException">There are more than 340 ranges that do not touch.</exception>
    public static string ToMap(IEnumerable<IdRange> ranges, uint own)
    {
        ArgumentNullException.ThrowIfNull(ranges);
        List<(ulong First, ulong End)> merged = [];
        foreach (IdRange range in ranges.Append(new IdRange(own, 1)).Where(r => r.Count > 0).OrderBy(r => r.First))
        {
            ulong end = Math.Min(Ids, (ulong)range.First + range.Count);
            if (merged.Count > 0 && range.First <= merged[^1].End)
            {
                merged[^1] = (merged[^1].First, Math.Max(merged[^1].End, end));
            }
            else if (range.First < end)
            {
                merged.Add((range.First, end));
            }
        }

        return merged.Count <= MaxRanges
            ? string.Concat(merged.Select(r => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{r.First} {r.First} {r.End - r.First}\n")))
            : throw new ArgumentException($"a user namespace maps at most {MaxRanges} ranges of ids, and these are {merged.Count}");
    }
}
