namespace MicroVm.Sandbox.Runtime;

/// <summary>What <c>microvm exec</c> is asked for.</summary>
public sealed record ExecRequest
{
    /// <summary>The container's id.</summary>
    public required string Id { get; init; }

    /// <summary>A process document; null when the container's own process is the pattern.</summary>
    public string? ProcessFile { get; init; }

    /// <summary>The command, when there is no document.</summary>
    public IReadOnlyList<string> Arguments { get; init; } = [];

    /// <summary>Working folder instead of the pattern's.</summary>
    public string? Cwd { get; init; }

    /// <summary>Added to the pattern's environment.</summary>
    public IReadOnlyList<string> Environment { get; init; } = [];

    /// <summary>uid or uid:gid instead of the pattern's.</summary>
    public string? User { get; init; }

    /// <summary>Added groups.</summary>
    public IReadOnlyList<string> AdditionalGids { get; init; } = [];

    /// <summary>Added capabilities.</summary>
    public IReadOnlyList<string> Capabilities { get; init; } = [];

    /// <summary>With a terminal.</summary>
    public bool Tty { get; init; }

    /// <summary>Instead of the pattern's; null leaves it.</summary>
    public bool? NoNewPrivileges { get; init; }

    /// <summary>Return once the process runs.</summary>
    public bool Detach { get; init; }

    /// <summary>Where the id of the process that stands for it is written; nowhere when null.</summary>
    public string? PidFile { get; init; }

    /// <summary>Socket that wants the pseudo-terminal's master.</summary>
    public string? ConsoleSocket { get; init; }

    /// <summary>Socket that wants a pidfd of the process that stands for it.</summary>
    public string? PidfdSocket { get; init; }

    /// <summary>A cgroup below the container's, which exists; null for the container's own.</summary>
    public string? Cgroup { get; init; }

    /// <summary>A paused container is no error.</summary>
    public bool IgnorePaused { get; init; }
}
