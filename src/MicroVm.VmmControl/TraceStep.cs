using MicroVm.Json;
using MicroVm.Linux.Tracing;

namespace MicroVm.VmmControl;

/// <summary>A step of a process's start, as it travels: <see cref="RecordedStep"/>.</summary>
public sealed record TraceStep : IJsonRecord
{
    /// <summary>What was done.</summary>
    public string Name { get; set; } = "";

    /// <summary>Nanoseconds of the host's CLOCK_MONOTONIC.</summary>
    public long Begin { get; set; }

    /// <summary>The same, not before <see cref="Begin"/>.</summary>
    public long End { get; set; }

    /// <summary>The lane of the process.</summary>
    public int Thread { get; set; }

    /// <summary>The steps of a recorder.</summary>
    public static IReadOnlyList<TraceStep> Of(StepRecorder recorder)
    {
        ArgumentNullException.ThrowIfNull(recorder);
        return [.. recorder.Steps.Select(s => new TraceStep { Name = s.Name, Begin = s.Begin, End = s.End, Thread = s.Thread })];
    }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Name = members.NonNullText("name"u8, Name);
        Begin = members.Number("begin"u8, Begin);
        End = members.Number("end"u8, End);
        Thread = members.Number("thread"u8, Thread);
    }
}
