using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Plan;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.Proxies;

/// <summary>The steps of <c>update</c>: limits change in the guest, on the host, and in the kept configuration. The caller locks.</summary>
internal static class ContainerUpdate
{
    private const int MiBShift = 20;

    /// <summary>Carries the change out; returns warnings about what has no effect.</summary>
    /// <param name="state">The container.</param>
    /// <param name="configuration">What is in force.</param>
    /// <param name="change">What is to change.</param>
    /// <param name="guest">Carries the guest's part out.</param>
    /// <param name="isShared">Other containers are in its VM, whose CPU time is not its own to limit on the host.</param>
    /// <param name="fitMemory">Gives the VM the memory that it needs with a limit of so many bytes; null where it has what it booted with.</param>
    /// <param name="fitCpus">Gives the VM the vCPUs that it needs with these limits; null where it has what it booted with.</param>
    /// <exception cref="Oci.SpecException">A limit is malformed.</exception>
    /// <exception cref="SandboxException">Guest or host refuse it, or it cannot be kept.</exception>
    internal static List<string> Apply(
        ContainerState state, KeptConfiguration configuration, Resources change, Action<UpdateContainerRequest> guest, bool isShared = false,
        Action<long?>? fitMemory = null, Action<CpuResources?>? fitCpus = null)
    {
        List<string> warnings = [];
        (UpdateContainerRequest request, Resources merged) = CgroupPlan.Update(state.Id, configuration.Spec.Linux?.Resources, change, warnings);
        long? limit = merged.Memory?.Limit;
        bool rises = limit > (configuration.Spec.Linux?.Resources?.Memory?.Limit ?? 0);
        if (fitMemory is not null && change.Memory?.Limit > 0 && rises)
        {
            fitMemory(limit);
        }
        else if (fitMemory is null && change.Memory?.Limit >> MiBShift > state.VmMemoryMiB)
        {
            warnings.Add($"the memory limit is above the {state.VmMemoryMiB} MiB of the VM, which were set when the container was created");
        }

        long cpus = VmCpus.Need(merged.Cpu), cpusBefore = VmCpus.Need(configuration.Spec.Linux?.Resources?.Cpu);
        if (cpus > cpusBefore)
        {
            if (fitCpus is not null)
            {
                fitCpus(merged.Cpu);
            }
            else if (VmCpus.Whole(cpus) > state.VmVcpus && state.VmVcpus > 0)
            {
                warnings.Add($"the CPU quota is above the {state.VmVcpus} vCPUs of the VM, which were set when the container was created");
            }
        }

        HostCgroup cgroup = new(state.Cgroups ?? []);
        request.ReclaimMemoryInUse = cgroup.HasVersion1("memory");
        guest(request);
        HostLimits.Update(cgroup, isShared || state.Status == ContainerStatus.Created ? WithoutBandwidth(merged) : merged, warnings.Add);
        configuration.ChangeResources(merged);
        if (fitMemory is not null && change.Memory?.Limit > 0 && !rises)
        {
            fitMemory(limit);
        }

        if (cpus < cpusBefore)
        {
            fitCpus?.Invoke(merged.Cpu);
        }

        return warnings;
    }

    // It holds from the start on.
    private static Resources WithoutBandwidth(Resources resources) => resources.Cpu is null
        ? resources
        : resources with { Cpu = resources.Cpu with { Quota = null, Period = null } };
}
