using System.Text.Json;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Proxies;

/// <summary>
/// The arguments of a container's process on the host: those of the process that it stands for, since whoever lists processes looks
/// for these (docker top, podman top, ps). Its environment holds the container's id.
/// </summary>
internal static class ProxyArguments
{
    /// <summary>The environment variable; it holds the container's id.</summary>
    internal const string Marker = "MICROVM_PROXY";

    // More of either is nothing to look at, and might not fit into what execve(2) takes.
    private const int MaxArguments = 1024, MaxLength = 1024;

    /// <summary>What a request's process is started with; the runtime's name and the id where the process is not known yet.</summary>
    /// <param name="request">The request.</param>
    /// <param name="configuration">Bytes of the configuration.</param>
    internal static IReadOnlyList<string> Of(ProxyRequest request, ReadOnlySpan<byte> configuration)
    {
        List<string>? arguments = request.Process is not null ? request.Process.Args : Find(configuration);
        return arguments is { Count: > 0 } ? arguments.GetRange(0, Math.Min(arguments.Count, MaxArguments)).ConvertAll(Cut) : ["microvm", request.Id];
    }

    /// <summary>process.args of a configuration; null when there is none, which its owner reports.</summary>
    private static List<string>? Find(ReadOnlySpan<byte> json)
    {
        try
        {
            Utf8JsonReader reader = new(json);
            return reader.Read() && Enter(ref reader, "process"u8) && Enter(ref reader, "args"u8) ? Texts(ref reader) : null;
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            return null;
        }
    }

    /// <summary>Moves from an object's opening brace to the value of one of its members.</summary>
    private static bool Enter(ref Utf8JsonReader reader, ReadOnlySpan<byte> name)
    {
        if (reader.TokenType == JsonTokenType.StartObject)
        {
            while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
            {
                bool found = reader.ValueTextEquals(name);
                _ = reader.Read();
                if (found)
                {
                    return true;
                }

                reader.Skip();
            }
        }

        return false;
    }

    private static List<string>? Texts(ref Utf8JsonReader reader)
    {
        if (reader.TokenType != JsonTokenType.StartArray)
        {
            return null;
        }

        List<string> texts = [];
        while (reader.Read() && reader.TokenType == JsonTokenType.String)
        {
            texts.Add(reader.GetString()!);
        }

        return texts;
    }

    private static string Cut(string argument) => argument.Length <= MaxLength ? argument : argument[..MaxLength];
}
