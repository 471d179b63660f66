using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox;

/// <summary>What <c>microvm run</c> is asked for.</summary>
public sealed record RunRequest
{
    /// <summary>The container's id.</summary>
    public required string Id { get; init; }

    /// <summary>Folder with config.json.</summary>
    public required string Bundle { get; init; }

    /// <summary>Folder of the containers' states.</summary>
    public required string Root { get; init; }

    /// <summary>Where the id of the process that stands for the container is written; nowhere when null.</summary>
    public string? PidFile { get; init; }

    /// <summary>Size and files of the VM.</summary>
    public VmOptions Vm { get; init; } = new();
}
