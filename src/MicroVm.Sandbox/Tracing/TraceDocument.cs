using MicroVm.Json;
using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Tracing;

/// <summary>A file of Chrome's trace format: chrome://tracing, ui.perfetto.dev and <c>microvm trace render</c> show it.</summary>
public sealed record TraceDocument : IJsonDocument<TraceDocument>
{
    /// <summary>The longest file that is read.</summary>
    public const int MaxBytes = 16 << 20;

    private const long NanosecondsOfMicrosecond = 1000;

    /// <summary>The events.</summary>
    public IReadOnlyList<TraceEvent> Events { get; set; } = [];

    /// <summary>"ms".</summary>
    public string? TimeUnit { get; set; }

    /// <inheritdoc/>
    public static TraceDocument Empty() => new();

    /// <summary>The document of some processes' steps.</summary>
    /// <param name="tracks">The processes, in the order in which they are shown.</param>
    /// <param name="began">The moment that counts as 0, in nanoseconds of CLOCK_MONOTONIC.</param>
    internal static TraceDocument Of(IReadOnlyList<TraceTrack> tracks, long began)
    {
        List<TraceEvent> events = [];
        for (int i = 0; i < tracks.Count; i++)
        {
            int process = i + 1;
            events.Add(new TraceEvent { Name = TraceEvent.ProcessName, Phase = TraceEvent.Metadata, Process = process, Arguments = new TraceArguments { Name = tracks[i].Process } });

            // Outer steps first, as viewers want them: of those that begin together, the longer one.
            events.AddRange(tracks[i].Steps.OrderBy(s => s.Begin).ThenByDescending(s => s.End).Select(s => Event(s, process, began)));
        }

        return new TraceDocument { Events = events, TimeUnit = "ms" };
    }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Events = members.Objects("traceEvents"u8, Events, static () => new TraceEvent());
        TimeUnit = members.Text("displayTimeUnit"u8, TimeUnit);
    }

    // Both ends are rounded down, so that what lies inside of another step stays there.
    private static TraceEvent Event(TraceStep step, int process, long began)
    {
        long begin = Math.Max(0, step.Begin - began) / NanosecondsOfMicrosecond, end = Math.Max(0, step.End - began) / NanosecondsOfMicrosecond;
        TraceEvent result = new() { Name = step.Name, Time = begin, Process = process, Thread = step.Thread };
        return step.End == step.Begin ? result with { Phase = TraceEvent.Instant, Scope = "t" } : result with { Duration = end - begin };
    }
}
