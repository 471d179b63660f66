using System.Text.Json;
using MicroVm.Json;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.StandIn;

/// <summary>Kinds of <see cref="StandInMessage"/>.</summary>
internal enum StandInMessageKind
{
    /// <summary>A line for the caller's log.</summary>
    Log,

    /// <summary>To the sandbox: the container's proxy was started, or why it was not.</summary>
    Proxy,

    /// <summary>To the caller: everything is there; hooks and the pid file are the caller's part.</summary>
    Created,

    /// <summary>To the stand-in: the caller has done its part.</summary>
    Proceed,

    /// <summary>To the caller: the new state is written, the caller may end.</summary>
    Ready,

    /// <summary>To the caller: it failed, and nothing is left.</summary>
    Failed,
}

/// <summary>A line between a command and the stand-in that it started.</summary>
internal sealed record StandInMessage : IHandJson<StandInMessage>
{
    /// <summary>Names of the kinds.</summary>
    internal static readonly EnumNames<StandInMessageKind> Kinds = new(
        (StandInMessageKind.Log, "log"),
        (StandInMessageKind.Proxy, "proxy"),
        (StandInMessageKind.Created, "created"),
        (StandInMessageKind.Proceed, "proceed"),
        (StandInMessageKind.Ready, "ready"),
        (StandInMessageKind.Failed, "failed"));

    /// <summary>Names of the severities.</summary>
    internal static readonly EnumNames<LogLevel> Levels = new(
        (LogLevel.Debug, "debug"),
        (LogLevel.Info, "info"),
        (LogLevel.Warning, "warning"),
        (LogLevel.Error, "error"));

    /// <summary>What it is.</summary>
    public required StandInMessageKind Kind { get; init; }

    /// <summary>For Log: the severity.</summary>
    public LogLevel Level { get; set; }

    /// <summary>For Log and Failed; for Proxy when there is none.</summary>
    public string? Text { get; set; }

    /// <summary>For Proxy: its process id.</summary>
    public int Pid { get; set; }

    /// <summary>For Created, and for Failed when there was one: the container's state.</summary>
    public ContainerState? State { get; set; }

    /// <summary>For Created: the process has a terminal.</summary>
    public bool Terminal { get; set; }

    public void WriteMembers(Utf8JsonWriter writer)
    {
        writer.WriteString("kind"u8, Kinds.Of(Kind));
        writer.WriteString("level"u8, Levels.Of(Level));
        writer.WriteBoolean("terminal"u8, Terminal);
        writer.WriteNumber("pid"u8, Pid);
        writer.WriteOptional("text"u8, Text);
        if (State is not null)
        {
            writer.WritePropertyName("state"u8);
            HandJson.WriteObject(writer, State);
        }
    }

    public static StandInMessage ReadMembers(ref Utf8JsonReader reader)
    {
        StandInMessageKind? kind = null;
        LogLevel level = default;
        string? text = null;
        ContainerState? state = null;
        bool terminal = false;
        int pid = 0;
        while (HandJson.NextMember(ref reader))
        {
            if (HandJson.Is(ref reader, "kind"u8))
            {
                kind = Kinds.Read(ref reader);
            }
            else if (HandJson.Is(ref reader, "level"u8))
            {
                level = Levels.Read(ref reader);
            }
            else if (HandJson.Is(ref reader, "terminal"u8))
            {
                terminal = reader.GetBoolean();
            }
            else if (HandJson.Is(ref reader, "pid"u8))
            {
                pid = reader.GetInt32();
            }
            else if (HandJson.Is(ref reader, "text"u8))
            {
                text = reader.GetString();
            }
            else if (HandJson.Is(ref reader, "state"u8))
            {
                state = HandJson.ReadObject<ContainerState>(ref reader);
            }
            else
            {
                HandJson.Pass(ref reader);
            }
        }

        return new StandInMessage { Kind = kind ?? throw new JsonException("no kind"), Level = level, Text = text, State = state, Terminal = terminal, Pid = pid };
    }
}
