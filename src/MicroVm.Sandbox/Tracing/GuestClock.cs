using MicroVm.Linux.Tracing;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.Tracing;

/// <summary>
/// How far the guest's CLOCK_MONOTONIC is behind the host's, in nanoseconds: the agent reads it at some moment between a call and its answer,
/// and the shortest of a few calls says it most precisely.
/// </summary>
/// <param name="Behind">What is added to a time of the guest.</param>
/// <param name="Error">By how much that may be wrong, either way.</param>
internal readonly record struct GuestClock(long Behind, long Error)
{
    private const int Calls = 5;

    /// <summary>Compares the clocks.</summary>
    /// <exception cref="SandboxException">The agent does not answer.</exception>
    internal static GuestClock Compare(Guest guest)
    {
        GuestClock best = new(0, long.MaxValue);
        for (int i = 0; i < Calls; i++)
        {
            long before = StepRecorder.Now;
            long theirs = guest.Call("compare the clocks", agent => agent.ReadTrace(new TraceRequest { ClockOnly = true })).Now;
            best = best.OrBetter(before, theirs, StepRecorder.Now);
        }

        return best;
    }

    /// <summary>This, or what another call shows when it was shorter. The guest's time wraps rather than throws: it may be anything.</summary>
    internal GuestClock OrBetter(long before, long theirs, long after)
    {
        long error = (after - before + 1) / 2;
        return error < Error ? new GuestClock(unchecked(before + ((after - before) / 2) - theirs), error) : this;
    }
}
