namespace MicroVm.Sandbox.Runtime;

/// <summary>The options that all commands share.</summary>
public sealed record RuntimeOptions
{
    /// <summary>Folder of the containers' states.</summary>
    public required string Root { get; init; }

    /// <summary>File of the log; standard error when null.</summary>
    public string? LogFile { get; init; }

    /// <summary>The log is JSON lines.</summary>
    public bool LogJson { get; init; }

    /// <summary>Debug lines are wanted.</summary>
    public bool Debug { get; init; }

    /// <summary>cgroupsPath has systemd's form.</summary>
    public bool SystemdCgroup { get; init; }
}
