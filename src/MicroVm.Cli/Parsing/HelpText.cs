using System.Text;

namespace MicroVm.Cli.Parsing;

/// <summary>What <c>--help</c> prints.</summary>
internal static class HelpText
{
    /// <summary>Of one command.</summary>
    internal static string Of(Command command)
    {
        StringBuilder text = new();
        text.Append($"NAME:\n   microvm {command.Name} - {command.Help}\n\nUSAGE:\n   microvm {command.Name}");
        text.Append(command.Flags.Length > 0 ? " [command options]" : "").Append(command.Arguments.Length > 0 ? " " + command.Arguments : "").Append('\n');
        if (command.Flags.Length > 0)
        {
            text.Append("\nOPTIONS:\n");
            Append(text, command.Flags.Select(f => (f.Shown, f.Help)));
        }

        return text.ToString();
    }

    /// <summary>Of all commands.</summary>
    internal static string Of(IReadOnlyList<Command> commands, Flag[] globals)
    {
        StringBuilder text = new("NAME:\n   microvm - runs OCI containers, each in a micro-VM of its own\n\nUSAGE:\n   microvm [global options] command [command options] [arguments...]\n\nCOMMANDS:\n");
        Append(text, commands.Select(c => (c.Name, c.Help)));
        text.Append("\nGLOBAL OPTIONS:\n");
        Append(text, globals.Select(f => (f.Shown, f.Help)));
        return text.ToString();
    }

    private static void Append(StringBuilder text, IEnumerable<(string Name, string Help)> rows)
    {
        List<(string Name, string Help)> all = [.. rows];
        int width = all.Max(r => r.Name.Length);
        all.ForEach(r => text.Append("   ").Append(r.Name.PadRight(width)).Append("  ").Append(r.Help).Append('\n'));
    }
}
