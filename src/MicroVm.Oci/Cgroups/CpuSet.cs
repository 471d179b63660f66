using System.Globalization;
using System.Numerics;

namespace MicroVm.Oci.Cgroups;

/// <summary>A list of CPUs or memory nodes in the kernel's form: <c>0-3,6</c>.</summary>
public static class CpuSet
{
    // CONFIG_NR_CPUS of the largest kernels.
    private const int MaxNumber = 8191;

    private const int BitsPerWord = 64;

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

        Span<ulong> members = stackalloc ulong[(MaxNumber + 1) / BitsPerWord];
        members.Clear();
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

            for (int number = first; number <= last; number++)
            {
                members[number / BitsPerWord] |= 1ul << (number % BitsPerWord);
            }
        }

        List<int> numbers = [];
        for (int word = 0; word < members.Length; word++)
        {
            for (ulong left = members[word]; left != 0; left &= left - 1)
            {
                numbers.Add((word * BitsPerWord) + BitOperations.TrailingZeroCount(left));
            }
        }

        return numbers;
    }

    private static bool TryNumber(string text, out int number) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number) && number <= MaxNumber;
}
