using MicroVm.Sandbox.Runtime;

namespace MicroVm.Shim.Bootstrap;

/// <summary>Where the state of containerd's containers is.</summary>
internal static class ShimFolders
{
    private const string Root = "/run/containerd/microvm";

    /// <summary>The runtime's options for the containers of a namespace.</summary>
    /// <param name="ns">containerd's namespace.</param>
    /// <param name="debug">Log more.</param>
    internal static RuntimeOptions Options(string ns, bool debug) => new() { Root = $"{Root}/{ns}", Debug = debug };
}
