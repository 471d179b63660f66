using System.Text;
using MicroVm.Cli.Parsing;
using MicroVm.Json;
using MicroVm.Oci;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Cli.Commands;

/// <summary><c>microvm features</c>: what the runtime can do, as JSON.</summary>
internal static class FeaturesCommand
{
    internal static Command Command => new()
    {
        Name = "features",
        Help = "show the enabled features",
        MaxArguments = 0,
        Run = _ =>
        {
            Features features = new()
            {
                Annotations = new() { ["dev.microvm.version"] = ProductVersion.Number },
                PotentiallyUnsafeConfigAnnotations = VmAnnotations.All,
            };
            Output.Write(Encoding.UTF8.GetString(JsonRecords.Write(features, indent: 4)) + "\n");
            return 0;
        },
    };
}
