using System.Text.Json;

namespace MicroVm.Sandbox.State;

/// <summary>
/// Names of an enumeration's values in JSON. A name keeps its meaning when values are added or reordered, which matters between a
/// command and a container's process that an earlier version started.
/// </summary>
/// <param name="rows">Every value with its name.</param>
internal sealed class EnumNames<TEnum>(params (TEnum Value, string Name)[] rows)
    where TEnum : struct, Enum
{
    /// <summary>Every value with its name.</summary>
    internal IReadOnlyList<(TEnum Value, string Name)> Rows => rows;

    /// <summary>The name of a value.</summary>
    internal string Of(TEnum value)
    {
        foreach ((TEnum Value, string Name) row in rows)
        {
            if (EqualityComparer<TEnum>.Default.Equals(row.Value, value))
            {
                return row.Name;
            }
        }

        throw new ArgumentOutOfRangeException(nameof(value), value, "the value has no name");
    }

    /// <summary>Reads the value on which <paramref name="reader"/> stands.</summary>
    /// <exception cref="JsonException">It is no name of this enumeration.</exception>
    internal TEnum Read(ref Utf8JsonReader reader)
    {
        if (reader.TokenType == JsonTokenType.String)
        {
            foreach ((TEnum Value, string Name) row in rows)
            {
                if (reader.ValueTextEquals(row.Name))
                {
                    return row.Value;
                }
            }
        }

        throw new JsonException($"not the name of a {typeof(TEnum).Name}");
    }
}
