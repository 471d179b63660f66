using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Plan;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;

namespace MicroVm.Sandbox.Pods;

/// <summary>A container's bundle, checked and resolved, before anything is made of it. Owns the files that its plan holds open.</summary>
internal sealed class ResolvedContainer : IDisposable
{
    private const int PrefixBytes = 4;

    private ResolvedContainer(Spec spec, ContainerPlan plan, HostCgroup cgroup, HostCgroup? before) =>
        (Spec, Plan, Cgroup, Before) = (spec, plan, cgroup, before);

    /// <summary>The container's id.</summary>
    internal required string Id { get; init; }

    /// <summary>Absolute path of its bundle.</summary>
    internal required string Bundle { get; init; }

    /// <summary>Absolute path of its root file system.</summary>
    internal required string Rootfs { get; init; }

    /// <summary>Its configuration.</summary>
    internal Spec Spec { get; }

    /// <summary>What agent and VMM are to do.</summary>
    internal ContainerPlan Plan { get; }

    /// <summary>Its cgroup on the host, which is not made yet.</summary>
    internal HostCgroup Cgroup { get; }

    /// <summary>The cgroup that this process is in.</summary>
    internal HostCgroup? Before { get; }

    /// <summary>Resolves the first container of a VM, whose sysctls are those of the host where it has none of its own.</summary>
    /// <remarks>
    /// The configuration is validated, paths are absolute; with <paramref name="systemdCgroup"/> cgroupsPath has systemd's form;
    /// <paramref name="warn"/> takes a line for everything that is left out.
    /// </remarks>
    /// <exception cref="SpecException">Something cannot be resolved.</exception>
    /// <exception cref="SandboxException">A host path cannot be opened, or the cgroup is frozen.</exception>
    internal static ResolvedContainer First(Spec spec, string id, string bundle, string rootfs, bool systemdCgroup, Action<string> warn)
    {
        ResolvedContainer first = Resolve(spec, id, bundle, rootfs, systemdCgroup, warn, null);
        GuestDefaults.Add(first.Plan.Spec.Sysctls, GuestDefaults.OfHost);
        return first;
    }

    /// <summary>Resolves a container that joins a VM; its exports have names that no other container's have.</summary>
    /// <exception cref="SpecException">Something cannot be resolved, or an annotation is not allowed.</exception>
    /// <exception cref="SandboxException">A host path cannot be opened, or the cgroup is frozen.</exception>
    internal static ResolvedContainer Joining(
        Spec spec, string id, string bundle, string rootfs, bool systemdCgroup, Action<string> warn, VmOptions vm, JoinTarget target)
    {
        VmAnnotations.Check(spec.Annotations, vm.AllowedAnnotations);
        return Resolve(spec, id, bundle, rootfs, systemdCgroup, warn, target);
    }

    /// <summary>Its first state.</summary>
    /// <param name="init">The host process that stands for its init.</param>
    internal ContainerState State(ProcessIdentity init) => ContainerState.Creating(Spec, Id, Bundle, Rootfs, init, Cgroup);

    public void Dispose() => Plan.Dispose();

    private static ResolvedContainer Resolve(
        Spec spec, string id, string bundle, string rootfs, bool systemdCgroup, Action<string> warn, JoinTarget? target)
    {
        (HostCgroup cgroup, HostCgroup? before) = HostCgroup.Of(spec.Linux?.CgroupsPath, id, systemdCgroup);
        cgroup.RefuseFrozen();
        List<string> warnings = [];
        string prefix = target is null ? "" : Convert.ToHexStringLower(RandomBytes.Get(PrefixBytes)) + ".";
        ContainerPlan plan = PlanBuilder.Build(spec, id, bundle, rootfs, warnings, target, prefix);
        CallerLimits.Add(plan.Spec.Process);
        warnings.ForEach(warn);
        return new ResolvedContainer(spec, plan, cgroup, before) { Id = id, Bundle = bundle, Rootfs = rootfs };
    }
}
