using System.Globalization;
using MicroVm.EndToEnd.Support;

namespace MicroVm.EndToEnd;

/// <summary>An agent that lies to the host: `run` ends with one error that says what is wrong, the host's processes do not grow, nothing is left.</summary>
public sealed class HostileAgentTests
{
    private const int StandardErrorBound = 24 << 10;
    private const long ResidentBound = 96 << 10;

    // Long enough for a start on a busy machine: what is not answered takes so long.
    private static readonly int StartSeconds = Installation.IsLab ? 60 : 8;

    [SkippableTheory]
    [InlineData("mute", "no answer within {0} s")]
    [InlineData("oversized", "larger than 4194304")]
    [InlineData("stream", "the agent broke the protocol: ttrpc: the server answered call 3, which was not made")]
    [InlineData("type", "the agent broke the protocol: ttrpc: the server sent a frame of type 3")]
    [InlineData("garbage", "the agent broke the protocol")]
    [InlineData("malformed", "the agent broke the protocol: ttrpc: malformed response")]
    [InlineData("status", "no such luck")]
    [InlineData("end", "the agent tells of an end that no process has: exit status -5, signal 19")]
    public void ALieIsNamed(string attack, string told)
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("echo must not run");
        CommandResult result = HostileRun.ToItsEnd(bundle, Flags(bundle, attack));
        Assert.True(result.ExitCode == 1, result.ToString());
        Assert.Equal("", result.StandardOutput);
        Assert.Contains(string.Format(CultureInfo.InvariantCulture, told, StartSeconds), result.StandardError, StringComparison.Ordinal);
        Assert.Single(result.StandardError.Split('\n', StringSplitOptions.RemoveEmptyEntries));
        Assert.InRange(result.StandardError.Length, 1, StandardErrorBound);
        Assert.DoesNotContain('\u001b', result.StandardError);
    }

    [SkippableFact]
    public void AnswersWithoutEndCostTheHostNoMemory()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("echo must not run");
        using Container container = Container.Start(bundle, Flags(bundle, "chatter"));
        int samples = 0;
        while (!container.Process.WaitForExit(50))
        {
            foreach (int pid in ProcessTree.Descendants(container.Process.Id).Append(container.Process.Id))
            {
                Assert.InRange(ProcessTree.AnonymousKiB(pid), 0, ResidentBound);
                samples++;
            }
        }

        CommandResult result = container.Wait();
        Assert.True(samples > 50, $"{samples} samples");
        Assert.Contains("sent 30 MB", File.ReadAllText(container.ConsoleLog), StringComparison.Ordinal);
        Assert.True(result.ExitCode == 1, result.ToString());
        Assert.Contains($"StartContainer: no answer within {StartSeconds} s", result.StandardError, StringComparison.Ordinal);
        HostileRun.AssertNothingLeft(container, bundle);
    }

    [SkippableFact]
    public void OutputWithoutEndOfAProcessThatHasEndedIsCutOff()
    {
        Installation.RequireKvm();
        using Bundle bundle = Bundle.Create("echo must not run");
        CommandResult result = HostileRun.ToItsEnd(bundle, Flags(bundle, "output"));
        Assert.True(result.ExitCode == 0, $"{result.ExitCode}: {result.StandardError[..Math.Min(result.StandardError.Length, 1000)]}");
        Assert.InRange(result.StandardOutput.Length, 64 << 20, 128 << 20);
        Assert.Contains("the container's output streams were not ended by the guest", result.StandardError, StringComparison.Ordinal);
    }

    private static string[] Flags(Bundle bundle, string attack) => HostileAgent.Flags(bundle, attack, StartSeconds);
}
