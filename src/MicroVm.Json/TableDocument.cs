using System.Text.Json;

namespace MicroVm.Json;

/// <summary>
/// A kind of document that is read by the rows of its types (<see cref="IJsonRecord"/>). The library's serializer would take longer to
/// set up than all else that a short-lived process does with a document, and is a ninth of such a program.
/// </summary>
/// <typeparam name="T">The document's model.</typeparam>
/// <param name="passOthers">Whether members without a row are passed over; else the document is malformed.</param>
/// <param name="create">Makes an empty object.</param>
public sealed class TableDocument<T>(bool passOthers, Func<T> create)
    where T : class, IJsonRecord
{
    /// <summary>Reads a whole document; null for null.</summary>
    /// <exception cref="JsonException">
    /// It is malformed, or (<see cref="MismatchException"/>) a member is not what its row expects; with path, line and column.
    /// </exception>
    public T? Read(ReadOnlySpan<byte> json)
    {
        try
        {
            return JsonMembers.Read(json, passOthers, create);
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            // The reader's own word for a string that is not valid Unicode is the latter.
            throw JsonPlace.Locate(json, e);
        }
    }
}
