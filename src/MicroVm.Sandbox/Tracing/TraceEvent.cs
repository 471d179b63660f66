using MicroVm.Json;

namespace MicroVm.Sandbox.Tracing;

/// <summary>An event of Chrome's trace format ("Trace Event Format", JSON object form). Times are whole microseconds.</summary>
public sealed record TraceEvent : IJsonRecord
{
    /// <summary>Phases: a step with its duration, a mark, what names a process.</summary>
    public const string Complete = "X", Instant = "i", Metadata = "M";

    /// <summary>Name of the metadata event that names a process.</summary>
    public const string ProcessName = "process_name";

    /// <summary>What was done.</summary>
    public string Name { get; set; } = "";

    /// <summary>What it is.</summary>
    public string Phase { get; set; } = Complete;

    /// <summary>When it began, since the command did.</summary>
    public long Time { get; set; }

    /// <summary>How long it took; null for what takes no time.</summary>
    public long? Duration { get; set; }

    /// <summary>The process: 1 for the first.</summary>
    public int Process { get; set; }

    /// <summary>The lane of the process.</summary>
    public int Thread { get; set; }

    /// <summary>For a mark: "t", it belongs to its lane.</summary>
    public string? Scope { get; set; }

    /// <summary>For metadata.</summary>
    public TraceArguments? Arguments { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Name = members.NonNullText("name"u8, Name);
        Phase = members.NonNullText("ph"u8, Phase);
        Time = members.Number("ts"u8, Time);
        Duration = members.Number("dur"u8, Duration);
        Process = members.Number("pid"u8, Process);
        Thread = members.Number("tid"u8, Thread);
        Scope = members.Text("s"u8, Scope);
        Arguments = members.Object("args"u8, Arguments);
    }
}
