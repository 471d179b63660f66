using System.Globalization;
using MicroVm.Linux.Tracing;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Vm;
using MicroVm.VmmControl;
using TraceStep = MicroVm.VmmControl.TraceStep;

namespace MicroVm.Sandbox.Tracing;

/// <summary>Reads the steps of a running VM: the VMM's and, on the same clock, the guest's.</summary>
internal static class VmTrace
{
    private const string GuestRuns = "the guest runs";

    /// <summary>The tracks of VMM and guest.</summary>
    /// <param name="vmm">The VMM.</param>
    /// <param name="guest">Its guest.</param>
    /// <param name="began">When the sandbox process began: nothing of this VM is older.</param>
    /// <exception cref="SandboxException">One of them does not answer.</exception>
    internal static IReadOnlyList<TraceTrack> Read(Vmm vmm, Guest guest, long began)
    {
        GuestClock clock = GuestClock.Compare(guest);
        TraceResponse answer = guest.Call("read the guest's trace", agent => agent.ReadTrace(new TraceRequest()));
        List<TraceStep>? reported = vmm.Control.Request(new ControlRequest { Operation = ControlOperation.Trace }).Steps;
        long now = StepRecorder.Now;
        IReadOnlyList<TraceStep> host = UntrustedSteps.Check(reported ?? [], began, now);
        long firstRun = host.FirstOrDefault(s => s.Name == GuestRuns)?.Begin ?? began;

        // What a template's guest did before it was saved is older than its VM.
        IReadOnlyList<TraceStep> inside = UntrustedSteps.Check(
            answer.Steps.Select(s => new TraceStep { Name = s.Name, Begin = unchecked(s.Begin + clock.Behind), End = unchecked(s.End + clock.Behind), Thread = s.Thread }), firstRun, now);
        string error = string.Create(CultureInfo.InvariantCulture, $"{clock.Error / 1000} us");
        return
        [
            new TraceTrack { Process = $"microvm-vmm {vmm.Process.Pid}", Steps = host },
            new TraceTrack { Process = $"guest (its clock is known to {error})", Steps = inside },
        ];
    }
}
