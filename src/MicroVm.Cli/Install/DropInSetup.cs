namespace MicroVm.Cli.Install;

/// <summary>An engine that reads a folder of configuration files: one of them is this runtime's own.</summary>
internal sealed class DropInSetup : EngineSetup
{
    private const string Mark = "# Written by \"microvm install\"; \"microvm install --remove\" takes it away.\n";

    /// <summary>The file's lines for a path of <c>microvm</c>.</summary>
    internal required Func<string, string> Lines { get; init; }

    /// <inheritdoc/>
    internal override string With(string? text, string program)
    {
        RefuseForeign(text);
        return Mark + Lines(program);
    }

    /// <inheritdoc/>
    internal override string? Without(string text)
    {
        RefuseForeign(text);
        return null;
    }

    private void RefuseForeign(string? text)
    {
        if (text?.StartsWith(Mark, StringComparison.Ordinal) == false)
        {
            throw InTheWay("the file was not written by \"microvm install\": move it away first");
        }
    }
}
