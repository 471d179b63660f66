using System.Text.Json;
using MicroVm.Json;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.StandIn;

/// <summary>A request on a container's control socket: one line, answered by one <see cref="ControlReply"/>.</summary>
internal sealed record ControlCall : IHandJson<ControlCall>
{
    /// <summary>Version of calls and replies; a container's process refuses calls of another.</summary>
    internal const int CurrentVersion = 1;

    /// <summary>The version that the caller speaks.</summary>
    public int Version { get; set; } = CurrentVersion;

    /// <summary>What to do.</summary>
    public required ControlVerb Verb { get; init; }

    /// <summary>For Signal: its number.</summary>
    public int Signal { get; set; }

    /// <summary>For Signal: every process of the container.</summary>
    public bool All { get; set; }

    /// <summary>For Update: the limits that change.</summary>
    public Resources? Change { get; set; }

    /// <summary>For OutOfMemory: the kills that the caller knows of; null asks for their number. For Join: how many descriptors follow.</summary>
    public long? Known { get; set; }

    public void WriteMembers(Utf8JsonWriter writer)
    {
        writer.WriteNumber("version"u8, Version);
        writer.WriteString("verb"u8, ControlVerbs.Names.Of(Verb));
        writer.WriteNumber("signal"u8, Signal);
        writer.WriteBoolean("all"u8, All);
        writer.WriteOptional("known"u8, Known);
        if (Change is not null)
        {
            writer.WritePropertyName("change"u8);
            JsonMembers.Write(writer, Change);
        }
    }

    public static ControlCall ReadMembers(ref Utf8JsonReader reader)
    {
        ControlVerb? verb = null;
        ControlCall call = new() { Verb = default, Version = 0 };
        while (HandJson.NextMember(ref reader))
        {
            if (HandJson.Is(ref reader, "version"u8))
            {
                call.Version = reader.GetInt32();
            }
            else if (HandJson.Is(ref reader, "verb"u8))
            {
                verb = ControlVerbs.Names.Read(ref reader);
            }
            else if (HandJson.Is(ref reader, "signal"u8))
            {
                call.Signal = reader.GetInt32();
            }
            else if (HandJson.Is(ref reader, "all"u8))
            {
                call.All = reader.GetBoolean();
            }
            else if (HandJson.Is(ref reader, "known"u8))
            {
                call.Known = reader.GetInt64();
            }
            else if (HandJson.Is(ref reader, "change"u8))
            {
                call.Change = JsonMembers.Read<Resources>(ref reader, passOthers: true);
            }
            else
            {
                HandJson.Pass(ref reader);
            }
        }

        return call with { Verb = verb ?? throw new JsonException("no verb") };
    }
}
