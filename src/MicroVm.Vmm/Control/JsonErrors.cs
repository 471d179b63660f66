using System.Text.Json;

namespace MicroVm.Vmm.Control;

/// <summary>Says in one sentence what is wrong with a JSON text.</summary>
public static class JsonErrors
{
    /// <summary>
    /// Where the error is, and what. The library's own texts are not in the binary (UseSystemResourceKeys), only their
    /// keys and arguments, so the sentence is made here.
    /// </summary>
    public static string Describe(JsonException e)
    {
        ArgumentNullException.ThrowIfNull(e);
        string where = e.LineNumber is { } line ? $"line {line + 1}, byte {e.BytePositionInLine + 1}" : "";
        string path = e.Path is { Length: > 0 } p && p != "$" ? p.TrimStart('$').TrimStart('.') : "";
        string what =
            Is(e, "UnmappedJsonProperty", "could not be mapped") ? "unknown field"
            : Is(e, "JsonRequiredPropertiesMissing", "missing required properties") ? $"a required field is missing: {Argument(e.Message)}"
            : Is(e, "DeserializeUnableToConvertValue", "could not be converted") ? "the value has the wrong type or is out of range"
            : "not valid JSON";
        return string.Concat(where, where.Length > 0 ? ": " : "", path, path.Length > 0 ? ": " : "") + what;
    }

    // The executable has the keys of the texts, the libraries under test the texts.
    private static bool Is(JsonException e, string key, string text) =>
        e.Message.StartsWith(key, StringComparison.Ordinal) || e.Message.Contains(text, StringComparison.Ordinal);

    // Both forms end with the fields' names in quotes.
    private static string Argument(string message)
    {
        int at = message.IndexOf('\'', StringComparison.Ordinal);
        return at < 0 ? message : message[at..].TrimEnd('.');
    }
}
