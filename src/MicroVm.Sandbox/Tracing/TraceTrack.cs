using MicroVm.Json;
using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Tracing;

/// <summary>The steps of one process, or of the guest.</summary>
internal sealed record TraceTrack : IJsonRecord
{
    /// <summary>Which process.</summary>
    public string Process { get; set; } = "";

    /// <summary>Its steps.</summary>
    public IReadOnlyList<TraceStep> Steps { get; set; } = [];

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Process = members.NonNullText("process"u8, Process);
        Steps = members.Objects("steps"u8, Steps, static () => new TraceStep());
    }
}
