using System.Globalization;

namespace MicroVm.Oci.Cgroups;

/// <summary>A list of CPUs or memory nodes in the kernel's form: <c>0-3,6</c>.</summary>
public static class CpuSet
{
    // CONFIG_NR_CPUS of the largest kernels.
    private const int MaxNumber = 8191;

    // Every number of these, one by one.
    private const int MaxText = 64 << 10;

    /// <summary>Parses a list; an empty text is an empty list.</summary>
    /// <exception cref="SpecException">The text is malformed. <paramref name="where"/> names it.</exception>
    public static IReadOnlyList<int> Parse(string? text, string where)
    {
        if (text?.Length > MaxText)
        {
            throw new SpecException($"{where}: a list of {text.Length} characters is too long");
        }

        bool[] members = new bool[MaxNumber + 1];
        foreach (string part in (text ?? "").Split(',', StringSplitOptions.TrimEntries))
        {
            if (part.Length == 0)
            {
                continue;
            }

            int dash = part.IndexOf('-', StringComparison.Ordinal);
            if (!TryNumber(dash < 0 ? part : part[..dash], out int first)
                || !TryNumber(dash < 0 ? part : part[(dash + 1)..], out int last)
                || last < first)
            {
                throw new SpecException($"{where}: \"{text}\" is not a list such as 0-3,6");
            }

            members.AsSpan(first, last - first + 1).Fill(true);
        }

        return [.. Enumerable.Range(0, members.Length).Where(i => members[i])];
    }

    private static bool TryNumber(string text, out int number) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number) && number <= MaxNumber;
}
