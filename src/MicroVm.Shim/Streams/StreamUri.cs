using MicroVm.Sandbox;

namespace MicroVm.Shim.Streams;

/// <summary>The address of a stream.</summary>
internal static class StreamUri
{
    internal const string Fifo = "fifo", File = "file", Binary = "binary";

    /// <summary>
    /// Splits an address; a plain path is a FIFO's. The query of <c>binary://</c> is a list of arguments: each name, and its value where
    /// it has one that is not empty.
    /// </summary>
    /// <exception cref="SandboxException">The path is not absolute.</exception>
    internal static (string Scheme, string Path, IReadOnlyList<string> Arguments) Split(string uri)
    {
        int colon = uri.IndexOf("://", StringComparison.Ordinal);
        string scheme = colon < 0 ? Fifo : uri[..colon];
        string rest = colon < 0 ? uri : uri[(colon + 3)..];
        int query = colon < 0 ? -1 : rest.IndexOf('?', StringComparison.Ordinal);
        string path = query < 0 ? rest : rest[..query];
        path = colon < 0 ? path : Uri.UnescapeDataString(path);
        if (path is not ['/', ..])
        {
            throw new SandboxException($"stream \"{uri}\" has no absolute path");
        }

        return (scheme, path, query < 0 ? [] : Arguments(rest[(query + 1)..]));
    }

    private static List<string> Arguments(string query)
    {
        List<string> arguments = [];
        foreach (string[] pair in query.Split('&', StringSplitOptions.RemoveEmptyEntries).Select(p => p.Split('=', 2)))
        {
            arguments.Add(Decode(pair[0]));
            if (pair.Length == 2)
            {
                arguments.Add(Decode(pair[1]));
            }
        }

        return arguments;
    }

    private static string Decode(string text) => Uri.UnescapeDataString(text.Replace('+', ' '));
}
