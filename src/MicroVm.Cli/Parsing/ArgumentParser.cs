using MicroVm.Sandbox;

namespace MicroVm.Cli.Parsing;

/// <summary>
/// Reads flags as runc's parser does (Go's flag package): one dash or two, <c>--name value</c> or <c>--name=value</c>, up to
/// the first argument that is no flag, or <c>--</c>.
/// </summary>
internal static class ArgumentParser
{
    /// <summary>Reads the flags at the start of <paramref name="arguments"/>; returns how many arguments they take.</summary>
    /// <exception cref="SandboxException">A flag is unknown or malformed.</exception>
    internal static int Read(IReadOnlyList<string> arguments, IReadOnlyList<Flag> flags, FlagValues values)
    {
        int i = 0;
        while (i < arguments.Count && arguments[i] is ['-', _, ..] argument)
        {
            i++;
            if (argument == "--")
            {
                break;
            }

            string name = argument[(argument[1] == '-' ? 2 : 1)..];
            int equals = name.IndexOf('=', StringComparison.Ordinal);
            string? value = equals < 0 ? null : name[(equals + 1)..];
            name = equals < 0 ? name : name[..equals];
            if (name.Length == 0 || name[0] == '-')
            {
                throw new SandboxException($"bad flag syntax: {argument}");
            }

            Flag flag = Find(flags, name) ?? throw new SandboxException($"flag provided but not defined: -{name}");
            if (flag.Value is null)
            {
                values.Add(flag, Switch(name, value ?? "true"));
            }
            else if (value is null && i == arguments.Count)
            {
                throw new SandboxException($"flag needs an argument: -{name}");
            }
            else
            {
                values.Add(flag, value ?? arguments[i++]);
            }
        }

        return i;
    }

    private static Flag? Find(IReadOnlyList<Flag> flags, string name) => flags.FirstOrDefault(f => f.Names.Contains(name));

    private static string Switch(string name, string value) =>
        value is "1" or "t" or "T" or "true" or "TRUE" or "True" or "0" or "f" or "F" or "false" or "FALSE" or "False"
            ? value
            : throw new SandboxException($"invalid boolean value \"{value}\" for -{name}: parse error");
}
