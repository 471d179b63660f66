using MicroVm.Cli.Parsing;

namespace MicroVm.Cli.Commands;

/// <summary>The commands that look at containers: state, list.</summary>
internal static class InspectCommands
{
    internal static readonly IReadOnlyList<Command> All =
    [
        new()
        {
            Name = "state", Arguments = "<container-id>", Help = "output the state of a container", MinArguments = 1, MaxArguments = 1,
            Run = call =>
            {
                Output.Write(StateOutput.Document(call.Runtime.State(call.Id)));
                return 0;
            },
        },
        new()
        {
            Name = "list", Help = "list containers started by this runtime with the given root", MaxArguments = 0,
            Flags = [new("format, f", "FORMAT", "table or json (default: table)"), new("quiet, q", null, "display only container ids")],
            Run = call =>
            {
                Output.Write(StateOutput.List(call.Runtime.List(), call.Flags.Text("format") ?? "table", call.Flags.On("quiet")));
                return 0;
            },
        },
    ];
}
