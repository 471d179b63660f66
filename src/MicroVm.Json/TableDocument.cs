using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace MicroVm.Json;

/// <summary>
/// A kind of document that is read by the rows of its types (<see cref="IJsonRecord"/>), since to set the serializer up for it takes longer than all else that a
/// short-lived process does with it. What is found wrong is left to the serializer, which can say where it is.
/// </summary>
/// <typeparam name="T">The document's model.</typeparam>
/// <param name="passOthers">Whether members without a row are passed over; else the document is not as it should be.</param>
/// <param name="create">Makes an empty object.</param>
/// <param name="serializer">What the serializer knows of it; asked for only where the rows refuse.</param>
public sealed class TableDocument<T>(bool passOthers, Func<T> create, Func<JsonTypeInfo<T>> serializer)
    where T : class, IJsonRecord
{
    /// <summary>Reads a whole document; null for null.</summary>
    /// <exception cref="JsonException">It is malformed, or a member has a wrong type.</exception>
    public T? Read(ReadOnlySpan<byte> json) => TryRead(json) ?? JsonSerializer.Deserialize(json, serializer());

    /// <summary>Reads a whole document by the rows alone; null for null, and when it is not as it should be.</summary>
    public T? TryRead(ReadOnlySpan<byte> json)
    {
        try
        {
            return JsonMembers.Read(json, passOthers, create);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            // The reader's own word for a string that is not valid Unicode is the latter.
            return null;
        }
    }
}
