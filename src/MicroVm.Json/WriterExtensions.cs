using System.Buffers;
using System.Text.Json;

namespace MicroVm.Json;

/// <summary>Documents that are written by hand, member by member; a member that is null is left out.</summary>
public static class WriterExtensions
{
    private const int UsualLength = 1024;

    /// <summary>A whole document.</summary>
    /// <param name="value">What it tells.</param>
    /// <param name="write">Writes the document's one value.</param>
    public static byte[] Document<T>(T value, Action<Utf8JsonWriter, T> write)
    {
        ArgumentNullException.ThrowIfNull(write);
        ArrayBufferWriter<byte> buffer = new(UsualLength);
        using (Utf8JsonWriter writer = new(buffer, new JsonWriterOptions { Encoder = PlainEncoder.Instance }))
        {
            write(writer, value);
        }

        return buffer.WrittenSpan.ToArray();
    }

    /// <summary>A text.</summary>
    public static void WriteOptional(this Utf8JsonWriter writer, ReadOnlySpan<byte> name, string? value)
    {
        ArgumentNullException.ThrowIfNull(writer);
        if (value is not null)
        {
            writer.WriteString(name, value);
        }
    }

    /// <summary>true or false.</summary>
    public static void WriteOptional(this Utf8JsonWriter writer, ReadOnlySpan<byte> name, bool? value)
    {
        ArgumentNullException.ThrowIfNull(writer);
        if (value is { } flag)
        {
            writer.WriteBoolean(name, flag);
        }
    }

    /// <summary>A whole number.</summary>
    public static void WriteOptional(this Utf8JsonWriter writer, ReadOnlySpan<byte> name, long? value)
    {
        ArgumentNullException.ThrowIfNull(writer);
        if (value is { } number)
        {
            writer.WriteNumber(name, number);
        }
    }

    /// <summary>A whole number.</summary>
    public static void WriteOptional(this Utf8JsonWriter writer, ReadOnlySpan<byte> name, ulong? value)
    {
        ArgumentNullException.ThrowIfNull(writer);
        if (value is { } number)
        {
            writer.WriteNumber(name, number);
        }
    }

    /// <summary>A list of texts.</summary>
    public static void WriteOptional(this Utf8JsonWriter writer, ReadOnlySpan<byte> name, List<string>? values)
    {
        ArgumentNullException.ThrowIfNull(writer);
        if (values is not null)
        {
            writer.WriteStartArray(name);
            values.ForEach(writer.WriteStringValue);
            writer.WriteEndArray();
        }
    }

    /// <summary>An object of texts.</summary>
    public static void WriteOptional(this Utf8JsonWriter writer, ReadOnlySpan<byte> name, SortedDictionary<string, string>? values)
    {
        ArgumentNullException.ThrowIfNull(writer);
        if (values is not null)
        {
            writer.WriteStartObject(name);
            foreach ((string key, string value) in values)
            {
                writer.WriteString(key, value);
            }

            writer.WriteEndObject();
        }
    }

    /// <summary>An object, of which <paramref name="write"/> writes the members.</summary>
    public static void WriteOptional<T>(this Utf8JsonWriter writer, ReadOnlySpan<byte> name, T? value, Action<Utf8JsonWriter, T> write)
        where T : class
    {
        ArgumentNullException.ThrowIfNull(writer);
        ArgumentNullException.ThrowIfNull(write);
        if (value is not null)
        {
            writer.WriteStartObject(name);
            write(writer, value);
            writer.WriteEndObject();
        }
    }
}
