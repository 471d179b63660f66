using System.Text.Json;

namespace MicroVm.Json;

/// <summary>For comparisons.</summary>
internal static class TableDocumentExtensions
{
    /// <summary>Reads a document; null for null, and when it is not as it should be.</summary>
    public static T? TryRead<T>(this TableDocument<T> document, ReadOnlySpan<byte> json)
        where T : class, IJsonRecord
    {
        try
        {
            return document.Read(json);
        }
        catch (JsonException)
        {
            return null;
        }
    }
}
