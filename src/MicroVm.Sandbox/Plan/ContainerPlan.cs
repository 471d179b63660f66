using MicroVm.Sandbox.Vm;
using Proto = MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Plan;

/// <summary>A bundle resolved: what the agent carries out, and what the VM must show it. Owns the exports.</summary>
internal sealed class ContainerPlan : IDisposable
{
    /// <summary>For the agent.</summary>
    internal required Proto.ContainerSpec Spec { get; init; }

    /// <summary>The root file system first.</summary>
    internal required List<Export> Exports { get; init; }

    public void Dispose() => Exports.ForEach(e => e.Dispose());
}
