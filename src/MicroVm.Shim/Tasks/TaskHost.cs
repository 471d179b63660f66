using MicroVm.Sandbox;
using MicroVm.Shim.Containers;

namespace MicroVm.Shim.Tasks;

/// <summary>What all tasks of a shim share.</summary>
/// <param name="Namespace">containerd's namespace.</param>
/// <param name="Debug">Log more.</param>
/// <param name="Main">The process's first thread.</param>
/// <param name="Log">The log.</param>
internal sealed record TaskHost(string Namespace, bool Debug, MainThread Main, RuntimeLog Log);
