using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Runtime;

/// <summary>runc's words that callers look for in error texts.</summary>
internal static class RuntimeTexts
{
    /// <summary>A signal for a container that has ended.</summary>
    internal const string NotRunning = "container not running";

    /// <summary>A status in texts.</summary>
    internal static string Name(ContainerStatus status) => ContainerState.StatusNames.Name(status);
}
