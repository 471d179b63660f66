using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace MicroVm.Cli.Install;

/// <summary>Docker's daemon.json, which is one file for all: the runtime becomes a member of "runtimes".</summary>
internal sealed class DockerSetup : EngineSetup
{
    private const string Runtimes = "runtimes", Name = "microvm", Default = "default-runtime";

    /// <inheritdoc/>
    internal override string With(string? text, string program)
    {
        using JsonDocument document = Parse(string.IsNullOrWhiteSpace(text) ? "{}" : text);
        JsonElement? runtimes = RuntimesOf(document.RootElement);
        if (runtimes?.TryGetProperty(Name, out JsonElement present) == true)
        {
            return PathOf(present) == program
                ? text!
                : throw InTheWay($"the runtime {Name} is set up otherwise: remove it first");
        }

        return Write(document.RootElement, runtimes, program);
    }

    /// <inheritdoc/>
    internal override string? Without(string text)
    {
        using JsonDocument document = Parse(text);
        if (RuntimesOf(document.RootElement) is not { } runtimes || !runtimes.TryGetProperty(Name, out JsonElement present))
        {
            return text;
        }

        if (Path.GetFileName(PathOf(present)) != Name)
        {
            throw InTheWay($"the runtime {Name} is another program: {PathOf(present)}");
        }

        if (document.RootElement.TryGetProperty(Default, out JsonElement standard) && standard.ValueEquals(Name))
        {
            throw InTheWay($"\"{Default}\" is {Name}: change it first");
        }

        bool last = document.RootElement.EnumerateObject().Count() == 1 && runtimes.EnumerateObject().Count() == 1;
        return last ? null : Write(document.RootElement, runtimes, null);
    }

    private JsonDocument Parse(string text)
    {
        try
        {
            JsonDocument document = JsonDocument.Parse(text);
            return document.RootElement.ValueKind == JsonValueKind.Object ? document : throw InTheWay("it is not an object");
        }
        catch (JsonException e)
        {
            throw InTheWay($"it is not valid JSON (line {e.LineNumber + 1})");
        }
    }

    private JsonElement? RuntimesOf(JsonElement root) =>
        !root.TryGetProperty(Runtimes, out JsonElement runtimes) ? null
        : runtimes.ValueKind == JsonValueKind.Object ? runtimes
        : throw InTheWay($"\"{Runtimes}\" is not an object");

    private static string? PathOf(JsonElement runtime) =>
        runtime.ValueKind == JsonValueKind.Object && runtime.TryGetProperty("path", out JsonElement path) && path.ValueKind == JsonValueKind.String
            ? path.GetString()
            : null;

    /// <summary>The document with the runtime at a path, or without it. Every other member is as it was.</summary>
    private static string Write(JsonElement root, JsonElement? runtimes, string? program)
    {
        using MemoryStream stream = new();
        using (Utf8JsonWriter writer = new(stream, new JsonWriterOptions { Indented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
        {
            writer.WriteStartObject();
            foreach (JsonProperty member in root.EnumerateObject())
            {
                if (member.NameEquals(Runtimes))
                {
                    WriteRuntimes(writer, runtimes, program);
                }
                else
                {
                    member.WriteTo(writer);
                }
            }

            if (runtimes is null)
            {
                WriteRuntimes(writer, null, program);
            }

            writer.WriteEndObject();
        }

        return Encoding.UTF8.GetString(stream.GetBuffer(), 0, (int)stream.Length) + "\n";
    }

    private static void WriteRuntimes(Utf8JsonWriter writer, JsonElement? runtimes, string? program)
    {
        JsonProperty[] others = [.. runtimes?.EnumerateObject().Where(r => !r.NameEquals(Name)) ?? []];
        if (others.Length == 0 && program is null)
        {
            return;
        }

        writer.WriteStartObject(Runtimes);
        foreach (JsonProperty other in others)
        {
            other.WriteTo(writer);
        }

        if (program is not null)
        {
            writer.WriteStartObject(Name);
            writer.WriteString("path", program);
            writer.WriteEndObject();
        }

        writer.WriteEndObject();
    }
}
