using System.Globalization;
using MicroVm.Json;
using MicroVm.Linux;
using MicroVm.Linux.Tracing;
using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Tracing;

/// <summary>The trace of a command, with what its container's process reports: written to its file once, when the command ends.</summary>
/// <param name="file">Absolute path of the file; null where no trace is wanted.</param>
/// <param name="began">When the command began, in nanoseconds of CLOCK_MONOTONIC.</param>
internal sealed class CommandTrace(string? file, long began)
{
    private readonly List<TraceTrack> _others = [];

    /// <summary>The command's own steps.</summary>
    internal StepRecorder Steps { get; } = file is null ? StepRecorder.Off : new StepRecorder(isOn: true);

    /// <summary>Adds what others report.</summary>
    internal void Add(IReadOnlyList<TraceTrack>? tracks)
    {
        if (tracks is not null)
        {
            _others.AddRange(tracks);
        }
    }

    /// <summary>Writes the file, by rename; nothing where no trace is wanted.</summary>
    /// <param name="warn">Takes a line when it cannot be written: the command has done what was asked.</param>
    internal void Write(Action<string> warn)
    {
        if (file is null)
        {
            return;
        }

        Steps.Add("the command", began, StepRecorder.Now);
        TraceTrack own = new() { Process = string.Create(CultureInfo.InvariantCulture, $"microvm {Environment.ProcessId}"), Steps = TraceStep.Of(Steps) };
        try
        {
            HostFile.Replace(file, JsonRecords.Write(TraceDocument.Of([own, .. _others], began)), 0b110_100_100);
        }
        catch (LinuxException e)
        {
            warn($"the trace is not written: {e.Message}");
        }
    }
}
