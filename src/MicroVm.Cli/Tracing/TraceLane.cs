using MicroVm.Sandbox.Tracing;

namespace MicroVm.Cli.Tracing;

/// <summary>The steps of one lane of a process, each with how many others it lies in.</summary>
internal sealed class TraceLane
{
    private readonly List<(TraceEvent Step, int Depth)> _steps = [];

    /// <summary>Sorts a lane's steps into rows. A step that overlaps another without lying in it goes to a row below, too.</summary>
    internal TraceLane(IEnumerable<TraceEvent> steps)
    {
        // The ends of the rows' last steps.
        List<long> ends = [];
        foreach (TraceEvent step in steps.OrderBy(s => s.Time).ThenByDescending(s => s.Duration ?? 0))
        {
            int row = 0;
            while (row < ends.Count && ends[row] > step.Time)
            {
                row++;
            }

            if (row == ends.Count)
            {
                ends.Add(0);
            }

            ends[row] = End(step);
            ends.RemoveRange(row + 1, ends.Count - row - 1);
            _steps.Add((step, row));
            Rows = Math.Max(Rows, row + 1);
        }
    }

    /// <summary>The steps, by their beginnings.</summary>
    internal IReadOnlyList<(TraceEvent Step, int Depth)> Steps => _steps;

    /// <summary>How many rows they take.</summary>
    internal int Rows { get; private set; }

    /// <summary>When a step ends.</summary>
    internal static long End(TraceEvent step) => step.Time + Math.Max(0, step.Duration ?? 0);
}
