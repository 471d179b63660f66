using MicroVm.Json;

namespace MicroVm.Sandbox.Tracing;

/// <summary>What a metadata event says.</summary>
public sealed record TraceArguments : IJsonRecord
{
    /// <summary>The name that it gives.</summary>
    public string? Name { get; set; }

    void IJsonRecord.Members(ref JsonMembers members) => Name = members.Text("name"u8, Name);
}
