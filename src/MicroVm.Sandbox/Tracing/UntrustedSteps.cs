using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Tracing;

/// <summary>Steps that a guest or its VMM reports: bounded in number, text and time, since either may be hostile.</summary>
internal static class UntrustedSteps
{
    private const int MostSteps = 512;
    private const int LongestName = 96;

    /// <summary>What is left of them.</summary>
    /// <param name="steps">The steps.</param>
    /// <param name="earliest">Steps that ended before are dropped, and what began before begins then: nanoseconds of CLOCK_MONOTONIC.</param>
    /// <param name="latest">The same for steps that end later.</param>
    internal static IReadOnlyList<TraceStep> Check(IEnumerable<TraceStep> steps, long earliest, long latest)
    {
        List<TraceStep> kept = [];
        foreach (TraceStep step in steps.Take(MostSteps))
        {
            if (step.End >= step.Begin && step.End >= earliest && step.Begin <= latest)
            {
                kept.Add(step with
                {
                    Name = RuntimeLog.Printable(step.Name[..Math.Min(step.Name.Length, LongestName)]).Replace('\n', '?'),
                    Begin = Math.Max(step.Begin, earliest),
                    End = Math.Min(step.End, latest),
                });
            }
        }

        return kept;
    }
}
