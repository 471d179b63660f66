using System.Globalization;
using MicroVm.Cli.Commands;

namespace MicroVm.Cli.Parsing;

/// <summary>A flag of a command. A value-less one may be given as <c>--name=false</c>, too.</summary>
/// <param name="Name">Its names, long first: "bundle, b".</param>
/// <param name="Value">Name of its value in the help; null for a switch.</param>
/// <param name="Help">One line.</param>
internal sealed record Flag(string Name, string? Value, string Help)
{
    /// <summary>What its value must be.</summary>
    internal FlagKind Kind { get; init; }

    /// <summary>The first name.</summary>
    internal string Key => Name.IndexOf(',', StringComparison.Ordinal) is >= 0 and var comma ? Name[..comma] : Name;

    /// <summary>Whether it is one of its names.</summary>
    internal bool Is(ReadOnlySpan<char> name)
    {
        ReadOnlySpan<char> rest = Name;
        while (rest.IndexOf(',') is >= 0 and var comma)
        {
            if (rest[..comma].SequenceEqual(name))
            {
                return true;
            }

            rest = rest[(comma + 1)..].TrimStart();
        }

        return rest.SequenceEqual(name);
    }

    /// <summary>Every name.</summary>
    internal IEnumerable<string> Names => Name.Split(',', StringSplitOptions.TrimEntries);

    /// <summary>How the help shows it.</summary>
    internal string Shown => string.Join(", ", Names.Select(n => (n.Length == 1 ? "-" : "--") + n)) + (Value is null ? "" : " " + Value);

    /// <summary>Why a value is refused, in the words of runc's parser; null when it is not.</summary>
    internal string? Refuses(string value) => Kind switch
    {
        _ when Value is null => value is "1" or "t" or "T" or "true" or "TRUE" or "True" or "0" or "f" or "F" or "false" or "FALSE" or "False" ? null : "parse error",
        FlagKind.Number => long.TryParse(value, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out _) ? null : "parse error",
        FlagKind.Numbers => long.TryParse(value, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out _) ? null : $"strconv.ParseInt: parsing \"{value}\": invalid syntax",
        FlagKind.Duration => Quantities.TryDuration(value, out _) ? null : "parse error",
        _ => null,
    };
}

/// <summary>What a flag's value must be.</summary>
internal enum FlagKind
{
    /// <summary>Anything.</summary>
    Text,

    /// <summary>A whole number.</summary>
    Number,

    /// <summary>A whole number, of a flag that may be repeated.</summary>
    Numbers,

    /// <summary>A duration in Go's form.</summary>
    Duration,
}
