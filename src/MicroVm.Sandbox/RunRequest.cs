using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox;

/// <summary>What <c>microvm create</c> and <c>microvm run</c> are asked for.</summary>
public sealed record RunRequest
{
    /// <summary>The container's id.</summary>
    public required string Id { get; init; }

    /// <summary>Folder with config.json.</summary>
    public required string Bundle { get; init; }

    /// <summary>Where the id of the process that stands for the container is written; nowhere when null.</summary>
    public string? PidFile { get; init; }

    /// <summary>Socket that wants the pseudo-terminal's master.</summary>
    public string? ConsoleSocket { get; init; }

    /// <summary>Socket that wants a pidfd of the process that stands for the container's.</summary>
    public string? PidfdSocket { get; init; }

    /// <summary>For run: return once the container runs.</summary>
    public bool Detach { get; init; }

    /// <summary>For run: keep the container's state after its end.</summary>
    public bool Keep { get; init; }

    /// <summary>For run: file for a trace of the start (<see cref="Tracing.TraceDocument"/>); none when null.</summary>
    public string? Trace { get; init; }

    /// <summary>Size and files of the VM.</summary>
    public VmOptions Vm { get; init; } = new();
}
