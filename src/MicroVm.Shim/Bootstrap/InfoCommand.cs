using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using MicroVm.Json;
using MicroVm.Oci;
using MicroVm.Sandbox.Vm;
using MicroVm.Shim.Api;

namespace MicroVm.Shim.Bootstrap;

/// <summary><c>-info</c>: prints a RuntimeInfo message, with the specification's features document, for containerd 2.0 and later.</summary>
internal static class InfoCommand
{
    /// <summary>containerd's name of this runtime.</summary>
    internal const string RuntimeName = "io.containerd.microvm.v2";

    private const string FeaturesType = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

    /// <summary>Prints it. The runtime's options, on standard input, change nothing of it.</summary>
    internal static int Run()
    {
        StandardOutput.Write(Info().ToByteArray());
        return 0;
    }

    /// <summary>The message.</summary>
    internal static RuntimeInfo Info()
    {
        Features features = new()
        {
            Annotations = new() { ["dev.microvm.version"] = VersionCommand.Number },
            PotentiallyUnsafeConfigAnnotations = VmAnnotations.All,
        };
        return new RuntimeInfo
        {
            Name = RuntimeName,
            Version = new RuntimeVersion { Version = VersionCommand.Number, Revision = VersionCommand.Revision },
            Features = new Any
            {
                TypeUrl = FeaturesType,
                Value = ByteString.CopyFrom(JsonRecords.Write(features, indent: 4)),
            },
        };
    }
}
