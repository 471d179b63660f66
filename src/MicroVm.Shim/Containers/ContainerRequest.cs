using MicroVm.Sandbox;
using MicroVm.Sandbox.Runtime;
using MicroVm.Sandbox.Vm;
using MicroVm.Shim.Streams;

namespace MicroVm.Shim.Containers;

/// <summary>What a container is created from.</summary>
internal sealed record ContainerRequest
{
    /// <summary>Its id.</summary>
    internal required string Id { get; init; }

    /// <summary>Its bundle, absolute.</summary>
    internal required string Bundle { get; init; }

    /// <summary>Streams of its first process.</summary>
    internal required StdioUris Stdio { get; init; }

    /// <summary>containerd's namespace.</summary>
    internal required string Namespace { get; init; }

    /// <summary>The VM's size and kernel.</summary>
    internal required VmOptions Vm { get; init; }

    /// <summary>Where its state is kept.</summary>
    internal required RuntimeOptions Runtime { get; init; }

    /// <summary>The process's first thread, which shows the container's network namespace.</summary>
    internal required MainThread Main { get; init; }

    /// <summary>The log.</summary>
    internal required RuntimeLog Log { get; init; }
}
