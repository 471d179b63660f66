using System.CommandLine;
using System.Text.Json;
using MicroVm.Oci;
using MicroVm.Sandbox;

namespace MicroVm.Cli.Commands;

/// <summary><c>microvm features</c>: what the runtime can do, as JSON.</summary>
internal static class FeaturesCommand
{
    internal static Command Create(Func<string, Func<ParseResult, RuntimeLog, int>, Func<ParseResult, int>> guarded)
    {
        Command command = new("features", "show the enabled features");
        command.SetAction(guarded("features", (_, _) =>
        {
            Features features = new() { Annotations = new() { ["dev.microvm.version"] = ProductVersion.Number } };
            Output.Write(JsonSerializer.Serialize(features, FeaturesJson.Default.Features) + "\n");
            return 0;
        }));
        return command;
    }
}
