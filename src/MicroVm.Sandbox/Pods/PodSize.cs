using MicroVm.Oci.Config;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.Pods;

/// <summary>
/// Keeps a VM as large as the limits of its containers add up to, and at least as large as it booted: a container that comes, goes, or whose limits
/// change, makes it grow and shrink. Those without a limit use what is there. Any thread.
/// </summary>
/// <param name="memory">The VM's memory.</param>
/// <param name="cpus">The VM's vCPUs.</param>
internal sealed class PodSize(VmMemory memory, VmCpus cpus)
{
    private const int MiBShift = 20;
    private readonly Lock _lock = new();

    /// <summary>Memory of the VM, in MiB.</summary>
    internal int MemoryMiB => memory.MiB;

    /// <summary>Number of vCPUs that the guest uses.</summary>
    internal int Vcpus => cpus.Count;

    /// <summary>Whether the VM can have more memory than it booted with.</summary>
    internal bool MemoryGrows => memory.CanGrow;

    /// <summary>Whether the VM can have more vCPUs than it booted with.</summary>
    internal bool CpusGrow => cpus.CanGrow;

    /// <summary>Gives the VM the memory that its containers may use by their limits.</summary>
    /// <param name="sandbox">The VM and its containers.</param>
    /// <param name="id">A container whose limit changes, or that comes or goes.</param>
    /// <param name="limit">Its limit in bytes; null for none.</param>
    /// <exception cref="SandboxException">The guest cannot have it.</exception>
    internal void FitMemory(PodSandbox sandbox, string id, long? limit)
    {
        lock (_lock)
        {
            long sum = LimitMiB(limit) + sandbox.Others(id).Sum(r => LimitMiB(r?.Memory?.Limit));
            memory.Fit(sandbox.Vmm.Control, sum + VmShape.OverheadMiB, sandbox.MakeRoom);
        }

        static long LimitMiB(long? limit) => limit is > 0 ? (limit.Value >> MiBShift) + 1 : 0;
    }

    /// <summary>Gives the VM the vCPUs that its containers may use by their quotas.</summary>
    /// <param name="sandbox">The VM and its containers.</param>
    /// <param name="id">A container whose quota changes, or that comes or goes.</param>
    /// <param name="cpu">Its limits; null for none.</param>
    /// <exception cref="SandboxException">The guest cannot have them.</exception>
    internal void FitCpus(PodSandbox sandbox, string id, CpuResources? cpu)
    {
        lock (_lock)
        {
            cpus.Fit(sandbox.Vmm.Control, sandbox.Guest, VmCpus.Need(cpu) + sandbox.Others(id).Sum(r => VmCpus.Need(r?.Cpu)));
        }
    }

    /// <summary>Gives the VM what a container that joins it needs by its limits. A container that finds too little is better than none.</summary>
    /// <param name="sandbox">The VM.</param>
    /// <param name="id">The container.</param>
    /// <param name="resources">Its limits.</param>
    /// <param name="warn">Takes a line for what the VM cannot have.</param>
    internal void AddFor(PodSandbox sandbox, string id, Resources? resources, Action<string> warn)
    {
        long? limit = resources?.Memory?.Limit;
        if (limit > 0 && MemoryGrows)
        {
            Try(() => FitMemory(sandbox, id, limit), e => warn($"the VM does not grow by the container's memory limit: {e}"));
        }

        if (limit >> MiBShift > MemoryMiB)
        {
            warn($"the memory limit is above the {MemoryMiB} MiB of the VM");
        }

        if (VmCpus.Need(resources?.Cpu) > 0 && CpusGrow)
        {
            Try(() => FitCpus(sandbox, id, resources!.Cpu), e => warn($"the VM does not grow by the container's CPU quota: {e}"));
        }
    }

    /// <summary>Takes from the VM what a container had that has left it.</summary>
    /// <param name="sandbox">The VM.</param>
    /// <param name="id">The container.</param>
    /// <param name="note">Takes a line for what the VM keeps.</param>
    internal void TakeFrom(PodSandbox sandbox, string id, Action<string> note)
    {
        Try(() => FitMemory(sandbox, id, null), e => note($"the VM keeps its memory: {e}"));
        Try(() => FitCpus(sandbox, id, null), e => note($"the VM keeps its vCPUs: {e}"));
    }

    private static void Try(Action fit, Action<string> failed)
    {
        try
        {
            fit();
        }
        catch (SandboxException e)
        {
            failed(e.Message);
        }
    }
}
