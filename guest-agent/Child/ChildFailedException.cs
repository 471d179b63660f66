using MicroVm.Agent.Rootfs;

namespace MicroVm.Agent.Child;

/// <summary>A child failed, or was killed, before it had become its process.</summary>
public sealed class ChildFailedException : Exception
{
    /// <summary>Creates the exception.</summary>
    /// <param name="report">What the child said; null when it said nothing: it was killed.</param>
    public ChildFailedException(ChildReport? report)
        : base(report?.Describe("", "") ?? "the process was killed while it was being set up") => Report = report;

    /// <summary>What the child said; null when it was killed.</summary>
    public ChildReport? Report { get; }

    /// <summary>The failure in runc's words.</summary>
    /// <param name="program">The executable's path.</param>
    /// <param name="cwd">The working directory.</param>
    public SetupException ToSetup(string program, string cwd) => new(Report?.Describe(program, cwd) ?? Message);
}
