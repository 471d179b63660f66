using System.Globalization;
using MicroVm.Oci;
using MicroVm.Sandbox;

namespace MicroVm.Cli.Parsing;

/// <summary>Values of flags, by their first names.</summary>
internal sealed class FlagValues
{
    // A few at most.
    private readonly List<(string Key, string Value)> _values = [];

    /// <summary>Adds a value; the last one counts where one is wanted.</summary>
    internal void Add(Flag flag, string value) => _values.Add((flag.Key, value));

    /// <summary>Whether the flag was given.</summary>
    internal bool Has(string name) => Last(name) is not null;

    /// <summary>Refuses a flag whose meaning a micro-VM cannot have.</summary>
    /// <exception cref="SpecException">It was given.</exception>
    internal void Refuse(string name, string reason)
    {
        if (Has(name))
        {
            throw SpecException.Unsupported("--" + name, reason);
        }
    }

    /// <summary>The same for --preserve-fds, which may be 0.</summary>
    /// <exception cref="SpecException">It is more.</exception>
    internal void RefusePreservedDescriptors()
    {
        if (Number("preserve-fds") != 0)
        {
            Refuse("preserve-fds", "descriptors cannot be passed into a VM");
        }
    }

    /// <summary>A switch.</summary>
    internal bool On(string name) => Last(name) is "true" or "1" or "t" or "T" or "TRUE" or "True";

    /// <summary>The value; null when it was not given, or is empty.</summary>
    internal string? Text(string name) => Last(name) is { Length: > 0 } value ? value : null;

    /// <summary>Every value, in order.</summary>
    internal IReadOnlyList<string> All(string name) => _values.FindAll(v => v.Key == name).ConvertAll(v => v.Value);

    /// <summary>A whole number that is not negative; null when it was not given.</summary>
    /// <exception cref="SandboxException">It is something else.</exception>
    internal int? Number(string name) =>
        Text(name) is not { } text ? null
        : int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int value) ? value
        : throw new SandboxException($"--{name}: \"{text}\" is not a whole number");

    private string? Last(string name)
    {
        int i = _values.FindLastIndex(v => v.Key == name);
        return i < 0 ? null : _values[i].Value;
    }
}
