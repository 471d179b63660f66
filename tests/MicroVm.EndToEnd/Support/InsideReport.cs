namespace MicroVm.EndToEnd.Support;

/// <summary>What a script inside a container said of its surroundings: <c>say NAME COMMAND...</c>, part by part.</summary>
internal sealed class InsideReport
{
    /// <summary>The shell function that scripts begin with.</summary>
    public const string Say = """
        say() { echo "@$1"; shift; "$@" 2>&1; echo "@end"; }

        """;

    private readonly Dictionary<string, string> _parts = [];
    private readonly CommandResult _result;

    public InsideReport(CommandResult result)
    {
        _result = result;
        string? name = null;
        List<string> lines = [];
        foreach (string line in result.StandardOutput.Split('\n'))
        {
            if (name is not null && line == "@end")
            {
                _parts[name] = string.Join('\n', lines);
                name = null;
            }
            else if (name is null && line.StartsWith('@'))
            {
                name = line[1..];
                lines = [];
            }
            else
            {
                lines.Add(line);
            }
        }
    }

    /// <summary>A part's lines.</summary>
    public string this[string name] => _parts.TryGetValue(name, out string? text)
        ? text
        : throw new InvalidOperationException($"the container reported nothing on {name}: {_result}");
}
