using MicroVm.Sandbox.Vm;
using Proto = MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Plan;

/// <summary>A bundle resolved: what the agent carries out, and what the VM must show it. Owns what it shows.</summary>
internal sealed class ContainerPlan : IDisposable
{
    /// <summary>For the agent.</summary>
    internal required Proto.ContainerSpec Spec { get; init; }

    /// <summary>Exports and sockets.</summary>
    internal required MountSources Sources { get; init; }

    /// <summary>The root file system first.</summary>
    internal List<Export> Exports => Sources.Exports;

    public void Dispose() => Sources.Dispose();
}
