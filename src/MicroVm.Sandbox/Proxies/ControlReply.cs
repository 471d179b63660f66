using MicroVm.Json;
using MicroVm.Sandbox.Runtime;
using MicroVm.Sandbox.Tracing;

namespace MicroVm.Sandbox.Proxies;

/// <summary>The answer to a <see cref="ControlCall"/>.</summary>
internal sealed record ControlReply : IJsonDocument<ControlReply>
{
    /// <summary>Why it was not done; null when it was.</summary>
    public string? Error { get; set; }

    /// <summary>For Update: what has no effect.</summary>
    public List<string>? Warnings { get; set; }

    /// <summary>For Stats: cgroup files by name.</summary>
    public SortedDictionary<string, string>? Files { get; set; }

    /// <summary>For Stats: network interfaces.</summary>
    public List<InterfaceCounters>? Interfaces { get; set; }

    /// <summary>For OutOfMemory: kills since the first such call.</summary>
    public long? Kills { get; set; }

    /// <summary>For OutOfMemory: the container has ended, and there will be no more.</summary>
    public bool Ended { get; set; }

    /// <summary>For Trace.</summary>
    public List<TraceTrack>? Tracks { get; set; }

    /// <inheritdoc/>
    public static ControlReply Empty() => new();

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Error = members.Text("error"u8, Error);
        Files = members.TextMap("files"u8, Files);
        Kills = members.Number("kills"u8, Kills);
        Ended = members.Flag("ended"u8, Ended);
        Warnings = members.Texts("warnings"u8, Warnings);
        Interfaces = members.Objects("interfaces"u8, Interfaces);
        Tracks = members.Objects("tracks"u8, Tracks);
    }
}
