using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Plan;
using MicroVm.Sandbox.State;

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
    /// <param name="fit">Gives the VM the memory that it needs with a limit of so many bytes; null where it has what it booted with.</param>
    /// <exception cref="Oci.SpecException">A limit is malformed.</exception>
    /// <exception cref="SandboxException">Guest or host refuse it, or it cannot be kept.</exception>
    internal static List<string> Apply(ContainerState state, KeptConfiguration configuration, Resources change, Action<UpdateContainerRequest> guest, bool isShared = false, Action<long?>? fit = null)
    {
        List<string> warnings = [];
        (UpdateContainerRequest request, Resources merged) = CgroupPlan.Update(state.Id, configuration.Spec.Linux?.Resources, change, warnings);
        long? limit = merged.Memory?.Limit;
        bool rises = limit > (configuration.Spec.Linux?.Resources?.Memory?.Limit ?? 0);
        if (fit is not null && change.Memory?.Limit > 0 && rises)
        {
            fit(limit);
        }
        else if (fit is null && change.Memory?.Limit >> MiBShift > state.VmMemoryMiB)
        {
            warnings.Add($"the memory limit is above the {state.VmMemoryMiB} MiB of the VM, which were set when the container was created");
        }

        HostCgroup cgroup = new(state.Cgroups ?? []);
        request.ReclaimMemoryInUse = cgroup.HasVersion1("memory");
        guest(request);
        HostLimits.Update(cgroup, isShared || state.Status == ContainerStatus.Created ? WithoutBandwidth(merged) : merged, warnings.Add);
        configuration.ChangeResources(merged);
        if (fit is not null && change.Memory?.Limit > 0 && !rises)
        {
            fit(limit);
        }

        return warnings;
    }

    // It holds from the start on.
    private static Resources WithoutBandwidth(Resources resources) => resources.Cpu is null
        ? resources
        : resources with { Cpu = resources.Cpu with { Quota = null, Period = null } };
}
