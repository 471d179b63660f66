using MicroVm.Json;
using MicroVm.Oci.Config;

namespace MicroVm.Sandbox.Proxies;

/// <summary>A request on a container's control socket: one line, answered by one <see cref="ControlReply"/>.</summary>
internal sealed record ControlCall : IJsonDocument<ControlCall>
{
    /// <summary>Version of calls and replies; a container's process refuses calls of another.</summary>
    internal const int CurrentVersion = 1;

    // Before the verb is read.
    private const ControlVerb NoVerb = (ControlVerb)(-1);

    /// <summary>The version that the caller speaks.</summary>
    public int Version { get; set; } = CurrentVersion;

    /// <summary>What to do.</summary>
    public required ControlVerb Verb { get; set; }

    /// <summary>For Signal: its number.</summary>
    public int Signal { get; set; }

    /// <summary>For Signal: every process of the container.</summary>
    public bool All { get; set; }

    /// <summary>For Update: the limits that change.</summary>
    public Resources? Change { get; set; }

    /// <summary>For OutOfMemory: the kills that the caller knows of; null asks for their number. For Join: how many descriptors follow.</summary>
    public long? Known { get; set; }

    string? IJsonRecord.Missing => Verb == NoVerb ? "verb" : null;

    /// <inheritdoc/>
    public static ControlCall Empty() => new() { Verb = NoVerb, Version = 0 };

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Version = members.Number("version"u8, Version);
        Verb = members.Named("verb"u8, Verb, ControlVerbs.Names);
        Signal = members.Number("signal"u8, Signal);
        All = members.Flag("all"u8, All);
        Known = members.Number("known"u8, Known);
        Change = members.Object("change"u8, Change);
    }
}
