using System.Text.Json;
using System.Text.Json.Serialization;

namespace MicroVm.VmmControl;

/// <summary>
/// Reads and writes an enumeration by its members' names alone, as rows do: <see cref="JsonStringEnumConverter{TEnum}"/> takes numbers and
/// lists of names, too.
/// </summary>
internal sealed class NamedEnumConverter<TEnum> : JsonConverter<TEnum>
    where TEnum : struct, Enum
{
    private static readonly string[] Names = Enum.GetNames<TEnum>();
    private static readonly TEnum[] Values = Enum.GetValues<TEnum>();

    /// <inheritdoc/>
    public override TEnum Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        int at = reader.TokenType == JsonTokenType.String ? Array.IndexOf(Names, reader.GetString()) : -1;
        return at >= 0 ? Values[at] : throw new JsonException();
    }

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, TEnum value, JsonSerializerOptions options)
    {
        writer.WriteStringValue(Names[Array.IndexOf(Values, value)]);
    }
}
