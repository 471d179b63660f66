namespace MicroVm.Sandbox.Runtime;

/// <summary>runc's words that callers look for in error texts.</summary>
internal static class RuntimeTexts
{
    /// <summary>A signal for a container that has ended.</summary>
    internal const string NotRunning = "container not running";
}
