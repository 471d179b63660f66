using System.Text.Json;
using MicroVm.Json;
using MicroVm.Sandbox.Runtime;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.StandIn;

/// <summary>What a command asks a container's stand-in to do.</summary>
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
internal sealed record ControlCall : IHandJson<ControlCall>
{
    /// <summary>What to do.</summary>
    public required ControlVerb Verb { get; init; }

    /// <summary>For Signal.</summary>
    public int Signal { get; set; }

    /// <summary>For Signal: every process of the container.</summary>
    public bool All { get; set; }

    /// <summary>For Update: the agent's request.</summary>
    public byte[]? Update { get; set; }

    public void WriteMembers(Utf8JsonWriter writer)
    {
        writer.WriteNumber("verb"u8, (int)Verb);
        writer.WriteNumber("signal"u8, Signal);
        writer.WriteBoolean("all"u8, All);
        if (Update is not null)
        {
            writer.WriteBase64String("update"u8, Update);
        }
    }

    public static ControlCall ReadMembers(ref Utf8JsonReader reader)
    {
        ControlVerb? verb = null;
        int signal = 0;
        bool all = false;
        byte[]? update = null;
        while (HandJson.NextMember(ref reader))
        {
            if (HandJson.Is(ref reader, "verb"u8))
            {
                verb = (ControlVerb)reader.GetInt32();
            }
            else if (HandJson.Is(ref reader, "signal"u8))
            {
                signal = reader.GetInt32();
            }
            else if (HandJson.Is(ref reader, "all"u8))
            {
                all = reader.GetBoolean();
            }
            else if (HandJson.Is(ref reader, "update"u8))
            {
                update = reader.GetBytesFromBase64();
            }
            else
            {
                HandJson.Pass(ref reader);
            }
        }

        return new ControlCall { Verb = verb ?? throw new JsonException("no verb"), Signal = signal, All = all, Update = update };
    }
}

/// <summary>The answer to a <see cref="ControlCall"/>.</summary>
internal sealed record ControlReply : IHandJson<ControlReply>
{
    /// <summary>Why it was not done; null when it was.</summary>
    public string? Error { get; set; }

    /// <summary>For Stats: cgroup files by name.</summary>
    public SortedDictionary<string, string>? Files { get; set; }

    /// <summary>For Stats: network interfaces.</summary>
    public List<InterfaceCounters>? Interfaces { get; set; }

    public void WriteMembers(Utf8JsonWriter writer)
    {
        writer.WriteOptional("error"u8, Error);
        writer.WriteOptional("files"u8, Files);
        if (Interfaces is not null)
        {
            writer.WritePropertyName("interfaces"u8);
            JsonSerializer.Serialize(writer, Interfaces, StandInJson.Default.ListInterfaceCounters);
        }
    }

    public static ControlReply ReadMembers(ref Utf8JsonReader reader)
    {
        ControlReply reply = new();
        while (HandJson.NextMember(ref reader))
        {
            if (HandJson.Is(ref reader, "error"u8))
            {
                reply.Error = reader.GetString();
            }
            else if (HandJson.Is(ref reader, "files"u8))
            {
                reply.Files = HandJson.ReadTexts(ref reader);
            }
            else if (HandJson.Is(ref reader, "interfaces"u8))
            {
                reply.Interfaces = JsonSerializer.Deserialize(ref reader, StandInJson.Default.ListInterfaceCounters);
            }
            else
            {
                HandJson.Pass(ref reader);
            }
        }

        return reply;
    }
}
