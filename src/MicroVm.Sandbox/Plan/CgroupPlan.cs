using MicroVm.Oci.Cgroups;
using MicroVm.Oci.Config;
using Proto = MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Plan;

/// <summary>cgroup settings as the agent takes them.</summary>
internal static class CgroupPlan
{
    /// <summary>The settings as messages.</summary>
    internal static IEnumerable<Proto.CgroupSetting> Settings(IEnumerable<CgroupSetting> settings) =>
        settings.Select(s => new Proto.CgroupSetting { File = s.File, Value = s.Value, Optional = s.Optional });

    /// <summary>The agent's request for <c>update</c>, and the limits that are in force when it has been answered.</summary>
    /// <param name="id">The container.</param>
    /// <param name="current">What is in force.</param>
    /// <param name="change">The change.</param>
    /// <param name="warnings">Takes a line for each setting that has no effect in a VM.</param>
    /// <exception cref="Oci.SpecException">As for <see cref="ResourcesUpdate.Resolve"/>.</exception>
    internal static (Proto.UpdateContainerRequest Request, Resources Merged) Update(
        string id, Resources? current, Resources change, ICollection<string> warnings)
    {
        ResourcesUpdate update = ResourcesUpdate.Resolve(current, change, warnings);
        Proto.UpdateContainerRequest request = new()
        {
            ContainerId = id,
            RefuseMemoryLimitInUse = update.RefuseMemoryInUse,
            RefuseMemorySwapLimitInUse = update.RefuseSwapInUse,
        };
        request.Settings.AddRange(Settings(update.Settings));
        return (request, update.Merged);
    }
}
