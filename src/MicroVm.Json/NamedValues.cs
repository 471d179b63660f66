namespace MicroVm.Json;

/// <summary>
/// The names of an enumeration's values in JSON; its own would be looked up by reflection. A name keeps its meaning when values are added
/// or reordered, which matters between processes of two versions.
/// </summary>
/// <typeparam name="T">The enumeration.</typeparam>
/// <param name="names">Each value with its name.</param>
public sealed class NamedValues<T>(params (T Value, string Name)[] names)
    where T : struct, Enum
{
    /// <summary>Every value with its name.</summary>
    public IReadOnlyList<(T Value, string Name)> Rows => names;

    /// <summary>The value with this name; null when there is none.</summary>
    public T? Find(string? name)
    {
        foreach ((T value, string known) in names)
        {
            if (known == name)
            {
                return value;
            }
        }

        return null;
    }

    /// <summary>The name of a value.</summary>
    /// <exception cref="ArgumentOutOfRangeException">It has none.</exception>
    public string Name(T value)
    {
        foreach ((T known, string name) in names)
        {
            if (EqualityComparer<T>.Default.Equals(known, value))
            {
                return name;
            }
        }

        throw new ArgumentOutOfRangeException(nameof(value), value, "the value has no name in JSON");
    }
}
