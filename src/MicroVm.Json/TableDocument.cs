using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace MicroVm.Json;

/// <summary>
/// A kind of document that is read by tables of its members, since to set the serializer up for it takes longer than all else that a
/// short-lived process does with it. What they find wrong is left to the serializer, which can say where it is.
/// </summary>
/// <typeparam name="T">The document's model.</typeparam>
/// <param name="members">The document's members.</param>
/// <param name="serializer">What the serializer knows of it; asked for only where the tables refuse.</param>
public sealed class TableDocument<T>(Members<T> members, Func<JsonTypeInfo<T>> serializer)
    where T : class
{
    /// <summary>Reads a whole document; null for null.</summary>
    /// <exception cref="JsonException">It is malformed, or a member has a wrong type.</exception>
    public T? Read(ReadOnlySpan<byte> json) => TryRead(json) ?? JsonSerializer.Deserialize(json, serializer());

    /// <summary>Reads a whole document by the tables alone; null for null, and when it is not as it should be.</summary>
    public T? TryRead(ReadOnlySpan<byte> json)
    {
        try
        {
            DocumentReader reader = new(json);
            reader.Next();
            T? document = reader.Object(members);
            reader.End();
            return document;
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            // The reader's own word for a string that is not valid Unicode is the latter.
            return null;
        }
    }
}
