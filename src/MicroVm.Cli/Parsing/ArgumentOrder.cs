namespace MicroVm.Cli.Parsing;

/// <summary>
/// Moves flags that follow arguments to the front, by the rule of runc's parser (urfave/cli 1.22, <c>reorderArgs</c>): the argument
/// after a flag without <c>=</c> goes along, whether or not the flag takes a value, and everything after <c>--</c> stays.
/// </summary>
internal static class ArgumentOrder
{
    /// <summary>The arguments with the command's own flags first; unknown flags stay where they are.</summary>
    internal static string[] FlagsFirst(string[] arguments, Flag[] flags)
    {
        List<string> first = [], rest = [];
        bool follows = false;
        for (int i = 0; i < arguments.Length; i++)
        {
            string argument = arguments[i];
            bool isFlag = IsFlag(argument, flags);
            if (follows && !isFlag)
            {
                follows = false;
                first.Add(argument);
            }
            else if (argument == "--")
            {
                return [.. first, argument, .. rest, .. arguments[(i + 1)..]];
            }
            else if (isFlag)
            {
                first.Add(argument);
                follows = !argument.Contains('=', StringComparison.Ordinal);
            }
            else
            {
                rest.Add(argument);
            }
        }

        return [.. first, .. rest];
    }

    private static bool IsFlag(string argument, Flag[] flags)
    {
        if (argument is not ['-', _, ..] or "--")
        {
            return false;
        }

        ReadOnlySpan<char> name = argument.AsSpan(argument[1] == '-' ? 2 : 1);
        name = name.IndexOf('=') is >= 0 and var equals ? name[..equals] : name;
        foreach (Flag flag in flags)
        {
            if (flag.Is(name))
            {
                return true;
            }
        }

        return false;
    }
}
