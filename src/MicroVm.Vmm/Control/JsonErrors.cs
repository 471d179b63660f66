using System.Text.Json;
using MicroVm.Json;

namespace MicroVm.Vmm.Control;

/// <summary>Says in one sentence what is wrong with a JSON text.</summary>
public static class JsonErrors
{
    /// <summary>Where the error is, and what. Of the library's exceptions only the place is used: their texts are not in the binary.</summary>
    public static string Describe(JsonException e)
    {
        ArgumentNullException.ThrowIfNull(e);
        string where = e.LineNumber is { } line ? $"line {line + 1}, byte {e.BytePositionInLine + 1}" : "";
        string path = e.Path is { Length: > 0 } p && p != "$" ? p.TrimStart('$').TrimStart('.') : "";
        string what = e is MismatchException ? e.Message : "not valid JSON";
        return string.Concat(where, where.Length > 0 ? ": " : "", path, path.Length > 0 ? ": " : "") + what;
    }
}
