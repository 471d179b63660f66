namespace MicroVm.Cli.Parsing;

/// <summary>A flag of a command. A value-less one may be given as <c>--name=false</c>, too.</summary>
/// <param name="Name">Its names, long first: "bundle, b".</param>
/// <param name="Value">Name of its value in the help; null for a switch.</param>
/// <param name="Help">One line.</param>
internal sealed record Flag(string Name, string? Value, string Help)
{
    /// <summary>The first name.</summary>
    internal string Key => Name.Split(',')[0];

    /// <summary>Every name.</summary>
    internal IEnumerable<string> Names => Name.Split(',', StringSplitOptions.TrimEntries);

    /// <summary>How the help shows it.</summary>
    internal string Shown => string.Join(", ", Names.Select(n => (n.Length == 1 ? "-" : "--") + n)) + (Value is null ? "" : " " + Value);
}
