using System.Buffers;
using System.Globalization;
using System.Text.Json;

namespace MicroVm.Json;

/// <summary>Finds where in a document an error is. It reads the document once more, so that reading one without errors pays nothing for it.</summary>
internal static class JsonPlace
{
    // What a name may not have to be written after a point.
    private static readonly SearchValues<char> Special = SearchValues.Create(". '/\"[]()\t\n\r\f\b\\\u0085\u2028\u2029");

    /// <summary>The error with path, line and column.</summary>
    internal static JsonException Locate(ReadOnlySpan<byte> json, Exception error)
    {
        string path = PathAt(json, (error as MismatchException)?.Consumed ?? long.MaxValue);
        switch (error)
        {
            case MismatchException mismatch:
                ReadOnlySpan<byte> before = json[..(int)mismatch.Consumed];
                return new MismatchException(mismatch.Message, path, before.Count((byte)'\n'), before.Length - 1 - before.LastIndexOf((byte)'\n'));
            case JsonException syntax:
                return new JsonException(syntax.Message, path, syntax.LineNumber, syntax.BytePositionInLine, syntax);
            default:
                return new JsonException("a string is not valid Unicode", path, null, null, error);
        }
    }

    /// <summary>The path of the value that begins or ends at a place, for example $.process.args[0].</summary>
    private static string PathAt(ReadOnlySpan<byte> json, long consumed)
    {
        // A name for each object that is open, a number for each array.
        List<(string? Name, int Index)> open = [];
        Utf8JsonReader reader = new(json);
        try
        {
            while (reader.BytesConsumed < consumed && reader.Read())
            {
                switch (reader.TokenType)
                {
                    case JsonTokenType.PropertyName:
                        open[^1] = (reader.GetString(), -1);
                        continue;
                    case JsonTokenType.EndObject or JsonTokenType.EndArray:
                        open.RemoveAt(open.Count - 1);
                        EndValue(open, reader.BytesConsumed < consumed);
                        continue;
                }

                if (open.Count > 0 && open[^1].Name is null)
                {
                    open[^1] = (null, open[^1].Index + 1);
                }

                if (reader.TokenType == JsonTokenType.StartObject)
                {
                    open.Add(("", -1));
                }
                else if (reader.TokenType == JsonTokenType.StartArray)
                {
                    open.Add((null, -1));
                }
                else
                {
                    EndValue(open, reader.BytesConsumed < consumed);
                }
            }
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            // The place is where the text stops to be JSON.
        }

        return "$" + string.Concat(open.Select(o => o.Name is null ? Element(o.Index) : Member(o.Name)));
    }

    // What goes wrong behind a member's value is the object's error, not the member's.
    private static void EndValue(List<(string? Name, int Index)> open, bool isBehind)
    {
        if (isBehind && open.Count > 0 && open[^1].Name is not null)
        {
            open[^1] = ("", -1);
        }
    }

    private static string Element(int index) => index < 0 ? "" : string.Create(CultureInfo.InvariantCulture, $"[{index}]");

    private static string Member(string name) => name.Length == 0 ? "" : name.AsSpan().ContainsAny(Special) ? $"['{name}']" : "." + name;
}
