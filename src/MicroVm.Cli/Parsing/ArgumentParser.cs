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
    internal static int Read(string[] arguments, Flag[] flags, FlagValues values)
    {
        int i = 0;
        while (i < arguments.Length && arguments[i] is ['-', _, ..] argument)
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
            if (flag.Value is not null && value is null && i == arguments.Length)
            {
                throw new SandboxException($"flag needs an argument: -{name}");
            }

            value ??= flag.Value is null ? "true" : arguments[i++];
            if (flag.Refuses(value) is { } why)
            {
                throw new SandboxException($"invalid {(flag.Value is null ? "boolean " : "")}value \"{value}\" for {(flag.Value is null ? "" : "flag ")}-{name}: {why}");
            }

            values.Add(flag, value);
        }

        return i;
    }

    private static Flag? Find(Flag[] flags, string name) => Array.Find(flags, f => f.Is(name));
}
