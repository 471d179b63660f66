using System.Buffers;
using System.Text.Json;

namespace MicroVm.Json;

/// <summary>Whole documents of one record.</summary>
public static class JsonRecords
{
    private const int UsualLength = 1024;

    /// <summary>The document.</summary>
    /// <param name="value">What is written.</param>
    /// <param name="indent">Spaces for each level, each member on a line; 0 for all on one line.</param>
    public static byte[] Write<T>(T value, int indent = 0)
        where T : class, IJsonRecord => Write(indent, writer => JsonMembers.Write(writer, value));

    /// <summary>A document that is a list of records, on one line.</summary>
    public static byte[] WriteList<T>(IReadOnlyList<T> values)
        where T : class, IJsonRecord => Write(0, writer =>
        {
            writer.WriteStartArray();
            foreach (T value in values)
            {
                JsonMembers.Write(writer, value);
            }

            writer.WriteEndArray();
        });

    /// <summary>Reads a document; members without a row are passed over.</summary>
    /// <exception cref="JsonException">It is none, or not of this type.</exception>
    public static T Read<T>(ReadOnlySpan<byte> json)
        where T : class, IJsonDocument<T> =>
        new TableDocument<T>(passOthers: true, T.Empty).Read(json) ?? throw new JsonException("the document is null");

    private static byte[] Write(int indent, Action<Utf8JsonWriter> write)
    {
        ArrayBufferWriter<byte> buffer = new(UsualLength);
        JsonWriterOptions options = new() { Encoder = PlainEncoder.Instance, Indented = indent > 0, IndentSize = indent, NewLine = "\n" };
        using (Utf8JsonWriter writer = new(buffer, options))
        {
            write(writer);
        }

        return buffer.WrittenSpan.ToArray();
    }
}
