using System.Text.Json.Serialization;
using MicroVm.Sandbox.Runtime;

namespace MicroVm.Sandbox.StandIn;

/// <summary>What a command asks a container's stand-in to do.</summary>
[JsonConverter(typeof(JsonStringEnumConverter<ControlVerb>))]
internal enum ControlVerb
{
    /// <summary>Lets the init exec.</summary>
    Start,

    /// <summary>Sends a signal to the init, or to all processes.</summary>
    Signal,

    /// <summary>Freezes the container.</summary>
    Pause,

    /// <summary>Thaws it.</summary>
    Resume,

    /// <summary>Writes cgroup files of the guest.</summary>
    Update,

    /// <summary>Reads cgroup files of the guest.</summary>
    Stats,
}

/// <summary>A request on a stand-in's control socket: one line, answered by one <see cref="ControlReply"/>.</summary>
internal sealed record ControlCall
{
    /// <summary>What to do.</summary>
    public required ControlVerb Verb { get; init; }

    /// <summary>For Signal.</summary>
    public int Signal { get; set; }

    /// <summary>For Signal: every process of the container.</summary>
    public bool All { get; set; }

    /// <summary>For Update: the agent's request.</summary>
    public byte[]? Update { get; set; }
}

/// <summary>The answer to a <see cref="ControlCall"/>.</summary>
internal sealed record ControlReply
{
    /// <summary>Why it was not done; null when it was.</summary>
    public string? Error { get; set; }

    /// <summary>For Stats: cgroup files by name.</summary>
    public SortedDictionary<string, string>? Files { get; set; }

    /// <summary>For Stats: network interfaces.</summary>
    public List<InterfaceCounters>? Interfaces { get; set; }
}
