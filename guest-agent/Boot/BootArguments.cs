namespace MicroVm.Agent.Boot;

/// <summary>The agent's options on the kernel's command line: words that begin with <c>microvm.</c>.</summary>
/// <param name="LogLevel">microvm.log=error|warn|debug.</param>
public sealed record BootArguments(LogLevel LogLevel)
{
    /// <summary>Reads a command line; words that are not the agent's, and values that it does not know, are ignored.</summary>
    public static BootArguments Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        LogLevel level = LogLevel.Warn;
        foreach (string word in text.Split((char[])[' ', '\n'], StringSplitOptions.RemoveEmptyEntries))
        {
            const string log = "microvm.log=";
            if (word.StartsWith(log, StringComparison.Ordinal))
            {
                level = word[log.Length..] switch
                {
                    "error" => LogLevel.Error,
                    "debug" => LogLevel.Debug,
                    _ => LogLevel.Warn,
                };
            }
        }

        return new BootArguments(level);
    }
}
