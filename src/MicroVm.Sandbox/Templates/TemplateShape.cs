using MicroVm.Sandbox.Network;
using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Templates;

/// <summary>
/// The devices of every template: rng, vsock, one file system, the agent's image, and windows for network interfaces. A VM that needs
/// others boots.
/// </summary>
internal static class TemplateShape
{
    /// <summary>How many interfaces a VM may start with.</summary>
    internal const int MostInterfaces = 1;

    /// <summary>Windows of a template: as many more stay free for interfaces that come later as a booted VM has.</summary>
    internal const int Windows = MostInterfaces + VmNetwork.FreeWindows;

    /// <summary>The windows of a VM that is made into a template.</summary>
    internal static IReadOnlyList<NetConfig> FreeWindows(int vcpus) =>
        [.. Enumerable.Range(0, Windows).Select(_ => new NetConfig { QueuePairs = VmNetwork.QueuePairs(vcpus) })];
}
