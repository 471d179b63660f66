using System.Text.Json;
using System.Text.Unicode;
using MicroVm.Json;
using MicroVm.Linux;
using MicroVm.Oci.Config;

namespace MicroVm.Oci;

/// <summary>Reads the runtime specification's JSON documents, with errors that say where and what.</summary>
public static class SpecReader
{
    /// <summary>Name of the specification in a bundle.</summary>
    public const string FileName = "config.json";

    /// <summary>Most bytes of a document: a hostile bundle must not make the runtime read without end.</summary>
    public const int MaxBytes = 16 * 1024 * 1024;

    /// <summary>Reads <c>config.json</c> of <paramref name="bundle"/>.</summary>
    /// <exception cref="SpecException">It is missing, unreadable, malformed, or a member has a wrong type.</exception>
    public static Spec ReadBundle(string bundle) => ParseBundle(ReadBundleBytes(bundle));

    /// <summary>The bytes of <c>config.json</c> of <paramref name="bundle"/>, for <see cref="ParseBundle"/>.</summary>
    /// <exception cref="SpecException">It is missing or unreadable.</exception>
    public static byte[] ReadBundleBytes(string bundle)
    {
        ArgumentNullException.ThrowIfNull(bundle);
        return ReadFile(Path.Combine(bundle, FileName), "JSON specification file config.json");
    }

    /// <summary>Parses the bytes of a <c>config.json</c>.</summary>
    /// <exception cref="SpecException">They are malformed, or a member has a wrong type.</exception>
    public static Spec ParseBundle(ReadOnlySpan<byte> json) => Parse(json, FileName, SpecDocument.Config);

    /// <summary>Reads a process document (<c>exec --process</c>).</summary>
    /// <exception cref="SpecException">As for <see cref="ReadBundle"/>.</exception>
    public static Process ReadProcess(string path) =>
        Parse(ReadFile(path, null), Path.GetFileName(path), SpecDocument.Process);

    /// <summary>Parses a whole document. <paramref name="name"/> is what errors call it.</summary>
    /// <exception cref="SpecException">The text is malformed or a member has a wrong type.</exception>
    public static T Parse<T>(ReadOnlySpan<byte> json, string name, TableDocument<T> document)
        where T : class, IJsonRecord, new()
    {
        if (json.StartsWith("\uFEFF"u8))
        {
            throw new SpecException($"{name} begins with a byte order mark; JSON must not have one");
        }

        CheckSyntax(json, name);
        try
        {
            return document.Read(json)
                ?? throw new SpecException($"{name} is null; it must be a JSON object");
        }
        catch (JsonException e)
        {
            throw new SpecException($"{name}: {Where(e.Path)} has a wrong type{At(e)}", e);
        }
    }

    private static void CheckSyntax(ReadOnlySpan<byte> json, string name)
    {
        if (json.Trim(" \t\r\n"u8).IsEmpty)
        {
            throw new SpecException($"{name} is empty; it must be a JSON object (microvm spec writes one)");
        }

        try
        {
            Utf8JsonReader reader = new(json);
            while (reader.Read())
            {
                if (reader.TokenType is JsonTokenType.String or JsonTokenType.PropertyName)
                {
                    // Checks escapes and UTF-8, and that no string can end early as a C string: without an escape there is no NUL.
                    if ((reader.ValueIsEscaped || !Utf8.IsValid(reader.ValueSpan)) && reader.GetString()!.Contains('\0'))
                    {
                        throw new SpecException($"{name}: a string holds a NUL character, near byte {reader.TokenStartIndex}");
                    }
                }
            }
        }
        catch (JsonException e)
        {
            throw new SpecException($"{name} is not valid JSON{At(e)}", e);
        }
        catch (InvalidOperationException e)
        {
            throw new SpecException($"{name} is not valid JSON: a string is not valid Unicode", e);
        }
    }

    private static string At(JsonException e) =>
        e.LineNumber is { } line && e.BytePositionInLine is { } column ? $" (line {line + 1}, column {column + 1})" : "";

    /// <summary>"$.process.args[0]" as "process.args[0]".</summary>
    private static string Where(string? path)
    {
        string text = path is null ? "" : path.StartsWith("$.", StringComparison.Ordinal) ? path[2..] : path.TrimStart('$');
        return text.Length == 0 ? "the document" : text;
    }

    private static byte[] ReadFile(string path, string? what)
    {
        try
        {
            return HostFile.ReadAllBytes(path, MaxBytes);
        }
        catch (LinuxException e) when (what is null)
        {
            throw new SpecException($"open {path}: {e.Reason}", e);
        }
        catch (LinuxException e) when (e.Errno is Errno.ENOENT or Errno.ENOTDIR)
        {
            throw new SpecException($"{what} not found: {path}", e);
        }
        catch (LinuxException e)
        {
            throw new SpecException($"{what} cannot be read: {e.Message}", e);
        }
    }
}
