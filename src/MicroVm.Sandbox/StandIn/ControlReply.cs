using System.Text.Json;
using MicroVm.Json;
using MicroVm.Sandbox.Runtime;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.StandIn;

/// <summary>The answer to a <see cref="ControlCall"/>.</summary>
internal sealed record ControlReply : IHandJson<ControlReply>
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

    public void WriteMembers(Utf8JsonWriter writer)
    {
        writer.WriteOptional("error"u8, Error);
        writer.WriteOptional("files"u8, Files);
        writer.WriteOptional("kills"u8, Kills);
        writer.WriteBoolean("ended"u8, Ended);
        if (Warnings is not null)
        {
            writer.WriteStartArray("warnings"u8);
            Warnings.ForEach(writer.WriteStringValue);
            writer.WriteEndArray();
        }

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
            else if (HandJson.Is(ref reader, "kills"u8))
            {
                reply.Kills = reader.GetInt64();
            }
            else if (HandJson.Is(ref reader, "ended"u8))
            {
                reply.Ended = reader.GetBoolean();
            }
            else if (HandJson.Is(ref reader, "warnings"u8))
            {
                reply.Warnings = HandJson.ReadList(ref reader);
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
