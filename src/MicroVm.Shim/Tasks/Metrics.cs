using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using MicroVm.Sandbox.Runtime;

namespace MicroVm.Shim.Tasks;

/// <summary>A container's figures in the form that containerd's clients expect on this host. The guest's cgroups are of version 2.</summary>
internal static class Metrics
{
    private const string Type1 = "io.containerd.cgroups.v1.Metrics";
    private const string Type2 = "io.containerd.cgroups.v2.Metrics";

    /// <summary>The figures.</summary>
    /// <param name="figures">As the guest has them.</param>
    /// <param name="unified">The host's cgroups are of version 2.</param>
    internal static Any Of(ContainerFigures figures, bool unified) => unified
        ? new Any { TypeUrl = Type2, Value = MetricsV2.Of(figures).ToByteString() }
        : new Any { TypeUrl = Type1, Value = MetricsV1.Of(figures).ToByteString() };
}
