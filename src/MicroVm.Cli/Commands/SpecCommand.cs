using System.CommandLine;
using System.Text;
using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Sandbox;

namespace MicroVm.Cli.Commands;

/// <summary><c>microvm spec</c>: writes a default config.json.</summary>
internal static class SpecCommand
{
    internal static Command Create(Func<string, Func<ParseResult, RuntimeLog, int>, Func<ParseResult, int>> guarded)
    {
        Option<string> bundle = new("--bundle", "-b") { Description = "path to the root of the bundle directory", DefaultValueFactory = _ => "." };
        Command command = new("spec", "create a new specification file") { bundle };
        command.SetAction(guarded("spec", (result, _) =>
        {
            string path = Path.Combine(result.GetValue(bundle)!, SpecReader.FileName);
            if (Path.Exists(path))
            {
                throw new SpecException($"File {path} exists. Remove it first");
            }

            HostFile.Replace(path, Encoding.UTF8.GetBytes(DefaultSpec.Json + "\n"), 0b110_110_110);
            return 0;
        }));
        return command;
    }
}
