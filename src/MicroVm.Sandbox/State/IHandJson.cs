using System.Text.Json;
using MicroVm.Json;

namespace MicroVm.Sandbox.State;

/// <summary>
/// A small document that is written and read by hand: setting the serializer up for a type takes a short command longer than all
/// else that it does.
/// </summary>
internal interface IHandJson<T>
    where T : class, IHandJson<T>
{
    /// <summary>Writes the members; the object's braces are the caller's.</summary>
    void WriteMembers(Utf8JsonWriter writer);

    /// <summary>Reads the members up to the object's end; unknown ones are passed over.</summary>
    /// <exception cref="JsonException">It is malformed, or lacks something.</exception>
    /// <exception cref="InvalidOperationException">A member is of another type.</exception>
    static abstract T ReadMembers(ref Utf8JsonReader reader);
}

/// <summary>Whole documents of <see cref="IHandJson{T}"/>.</summary>
internal static class HandJson
{
    /// <summary>The document.</summary>
    internal static byte[] Write<T>(T value)
        where T : class, IHandJson<T> => WriterExtensions.Document(value, WriteObject);

    /// <summary>Writes a value within a document.</summary>
    internal static void WriteObject<T>(Utf8JsonWriter writer, T value)
        where T : class, IHandJson<T>
    {
        writer.WriteStartObject();
        value.WriteMembers(writer);
        writer.WriteEndObject();
    }

    /// <summary>Reads a document.</summary>
    /// <exception cref="JsonException">It is none, or not of this type.</exception>
    internal static T Read<T>(ReadOnlySpan<byte> json)
        where T : class, IHandJson<T>
    {
        try
        {
            Utf8JsonReader reader = new(json);
            _ = reader.Read();
            T value = ReadObject<T>(ref reader);
            return reader.Read() ? throw new JsonException("more than a document") : value;
        }
        catch (Exception e) when (e is InvalidOperationException or FormatException)
        {
            throw new JsonException(e.Message, e);
        }
    }

    /// <summary>Reads a value within a document; the reader stands on its opening brace, afterwards on its closing one.</summary>
    internal static T ReadObject<T>(ref Utf8JsonReader reader)
        where T : class, IHandJson<T> =>
        reader.TokenType == JsonTokenType.StartObject ? T.ReadMembers(ref reader) : throw new JsonException("not an object");

    /// <summary>The next member's name, on which the reader then stands; false at the object's end.</summary>
    internal static bool NextMember(ref Utf8JsonReader reader) => reader.Read() && reader.TokenType == JsonTokenType.PropertyName;

    /// <summary>Whether the member on which the reader stands has this name; the reader then stands on its value.</summary>
    internal static bool Is(ref Utf8JsonReader reader, ReadOnlySpan<byte> name) => reader.ValueTextEquals(name) && reader.Read();

    /// <summary>Passes over the member on which the reader stands.</summary>
    internal static void Pass(ref Utf8JsonReader reader)
    {
        _ = reader.Read();
        reader.Skip();
    }

    /// <summary>Reads an array of texts.</summary>
    internal static List<string> ReadList(ref Utf8JsonReader reader)
    {
        if (reader.TokenType != JsonTokenType.StartArray)
        {
            throw new JsonException("not an array");
        }

        List<string> values = [];
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            values.Add(reader.GetString() ?? throw new JsonException("an array holds null"));
        }

        return values;
    }

    /// <summary>Reads an object of texts; null for null.</summary>
    internal static SortedDictionary<string, string>? ReadTexts(ref Utf8JsonReader reader)
    {
        if (reader.TokenType == JsonTokenType.Null)
        {
            return null;
        }

        SortedDictionary<string, string> values = new(StringComparer.Ordinal);
        while (NextMember(ref reader))
        {
            string key = reader.GetString()!;
            _ = reader.Read();
            values[key] = reader.GetString() ?? throw new JsonException($"{key} is null");
        }

        return values;
    }
}
