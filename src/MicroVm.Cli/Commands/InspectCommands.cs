using MicroVm.Cli.Parsing;
using MicroVm.Sandbox.Runtime;
using MicroVm.Sandbox.State;

namespace MicroVm.Cli.Commands;

/// <summary>The commands that look at containers: state, list.</summary>
internal static class InspectCommands
{
    internal static Command State => new()
    {
        Name = "state",
        Arguments = "<container-id>",
        Help = "output the state of a container",
        MinArguments = 1,
        MaxArguments = 1,
        Run = call =>
        {
            Output.Write(StateOutput.Document(call.Runtime.State(call.Id)));
            return 0;
        },
    };

    internal static Command List => new()
    {
        Name = "list",
        Help = "list containers started by this runtime with the given root",
        MaxArguments = 0,
        Flags =
        [
            new("format, f", "FORMAT", "table or json (default: table)"),
            new("quiet, q", null, "display only container ids"),
            new("addresses", null, "add the containers' IP addresses: a last column, or a member of that name"),
        ],
        Run = call =>
        {
            Func<ContainerState, IReadOnlyList<string>>? addresses = call.Flags.On("addresses") ? ContainerRuntime.Addresses : null;
            Output.Write(StateOutput.List(call.Runtime.List(), call.Flags.Text("format") ?? "table", call.Flags.On("quiet"), addresses));
            return 0;
        },
    };
}
