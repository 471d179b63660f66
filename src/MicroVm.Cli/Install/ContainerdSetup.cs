using System.Globalization;

namespace MicroVm.Cli.Install;

/// <summary>
/// containerd's config.toml: a block of lines at its end. A file of its own beside it would not do: until version 2, containerd replaces all
/// of a plug-in's configuration by what an imported file has of it.
/// </summary>
internal sealed class ContainerdSetup : EngineSetup
{
    private const string Begin = "# BEGIN microvm: written by \"microvm install\"\n", End = "# END microvm\n", Header = "version = 2\n";

    // Where systemd's services look for programs.
    private static readonly string[] SearchPath = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

    /// <inheritdoc/>
    internal override string With(string? text, string program)
    {
        (string before, string old, string behind) = Split(text ?? "");
        string[] lines = Lines(before + behind);
        int version = VersionOf(Lines(text ?? ""));
        string plugin = version switch
        {
            1 => "plugins.cri",
            2 => "plugins.\"io.containerd.grpc.v1.cri\"",
            3 or 4 => "plugins.\"io.containerd.cri.v1.runtime\"",
            _ => throw InTheWay("the version of its format is not known: 1 to 4"),
        };
        if (Array.Exists(lines, IsRuntime))
        {
            throw InTheWay("there is a runtime microvm that was not written by \"microvm install\": remove it first");
        }

        if (Array.Exists(lines, IsInlineRuntimes))
        {
            throw InTheWay("runtimes is an inline table, to which no lines can be added: write it as [...containerd.runtimes.NAME] first");
        }

        string folder = Path.GetDirectoryName(program)!;
        string path = SearchPath.Contains(folder) ? "" : $"  runtime_path = \"{folder}/containerd-shim-microvm-v2\"\n";
        bool whole = Array.TrueForAll(lines, string.IsNullOrWhiteSpace) || old.Contains(Header, StringComparison.Ordinal);

        // Runtimes in the file take the place of those that containerd has of itself: runc, which everything else needs.
        string runc = Array.Exists(lines, l => TableOf(l).Contains(".containerd.runtimes.", StringComparison.Ordinal))
            ? ""
            : $"[{plugin}.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n";
        string separator = before.Length == 0 || before.EndsWith('\n') ? "" : "\n";
        return $"""
            {before}{separator}{Begin}{(whole ? Header : "")}{runc}[{plugin}.containerd.runtimes.microvm]
              runtime_type = "io.containerd.microvm.v2"
            {path}  pod_annotations = ["dev.microvm.*"]
              container_annotations = ["dev.microvm.*"]
            {End}{behind}
            """;
    }

    /// <inheritdoc/>
    internal override string? Without(string text)
    {
        (string before, _, string behind) = Split(text);
        string others = before + behind;
        return others.Trim().Length == 0 ? null : others;
    }

    private static string[] Lines(string text) => text.Split('\n', StringSplitOptions.TrimEntries);

    /// <summary>What is before the block, the block, and what is behind it.</summary>
    private (string Before, string Block, string Behind) Split(string text)
    {
        int begin = text.IndexOf(Begin, StringComparison.Ordinal);
        if (begin < 0)
        {
            return (text, "", "");
        }

        int end = text.IndexOf(End, begin, StringComparison.Ordinal);
        return end < 0
            ? throw InTheWay($"the line \"{End.TrimEnd()}\" is missing")
            : (text[..begin], text[begin..(end + End.Length)], text[(end + End.Length)..]);
    }

    /// <summary>The number of the format: 2 for a file that is not there yet, 1 for one that does not say.</summary>
    private static int VersionOf(string[] lines) =>
        lines.Select(l => l.Split('=', 2)).FirstOrDefault(l => l is [var key, _] && key.Trim() == "version") is [_, var value]
            ? int.TryParse(value.Split('#')[0], NumberStyles.AllowLeadingWhite | NumberStyles.AllowTrailingWhite, CultureInfo.InvariantCulture, out int version) ? version : 0
            : Array.TrueForAll(lines, string.IsNullOrWhiteSpace) ? 2 : 1;

    private static bool IsRuntime(string line) => TableOf(line).EndsWith(".containerd.runtimes.microvm", StringComparison.Ordinal);

    /// <summary>The name of the table that a line begins, without quotes; empty for other lines.</summary>
    private static string TableOf(string line) =>
        line.StartsWith('[') ? line.Split('#')[0].Replace("\"", "", StringComparison.Ordinal).TrimEnd(' ', ']') : "";

    private static bool IsInlineRuntimes(string line) =>
        !line.StartsWith('#') && line.Split('=', 2) is [var key, _] && (key.Trim() == "runtimes" || key.Trim().EndsWith(".runtimes", StringComparison.Ordinal));
}
