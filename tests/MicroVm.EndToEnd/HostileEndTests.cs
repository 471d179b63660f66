using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>Guests that end in every bad way, or never: `run` ends with one error that says how, and leaves nothing.</summary>
public sealed class HostileEndTests
{
    private const int StandardErrorBound = 16 << 10;

    [SkippableTheory]
    [InlineData("reset", "the VM did not start: the guest kernel panicked or reset the VM")]
    [InlineData("fault", "the VM did not start: the guest triple-faulted")]
    [InlineData("poweroff", "the VM did not start: the guest powered off")]
    [InlineData("silence", "the agent was not ready within 2 s: the guest does not answer")]
    [InlineData("spin", "the agent was not ready within 2 s: the guest does not answer")]
    [InlineData("flood", "the agent was not ready within 2 s: the guest does not answer")]
    public void TheEndIsTold(string attack, string told)
    {
        Installation.RequireKvm();
        Skip.If(Installation.IsLab && attack == "fault", "the lab's QEMU does not end a nested guest that triple-faults: NOT tested there");
        using Bundle bundle = Bundle.Create("echo must not run");
        CommandResult result = HostileRun.ToItsEnd(bundle, "--kernel", Installation.GuestProgram("endings.kernel"), "--kernel-args", $"attack={attack}", "--start-timeout", "2");
        Assert.True(result.ExitCode == 1, result.ToString());
        Assert.Equal("", result.StandardOutput);
        Assert.True(result.StandardError.Contains(told, StringComparison.Ordinal), result.ToString());
        Assert.Single(result.StandardError.Split('\n', StringSplitOptions.RemoveEmptyEntries));
        Assert.InRange(result.StandardError.Length, 1, StandardErrorBound);
        Assert.DoesNotContain('\u001b', result.StandardError);
    }
}
