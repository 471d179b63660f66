using System.Globalization;
using MicroVm.Linux;
using MicroVm.Oci.Cgroups;
using MicroVm.Oci.Config;

namespace MicroVm.Sandbox.HostCgroups;

/// <summary>
/// The container's limits on the host's side. The guest enforces them on the container's processes; here they bound the
/// whole VM: guest memory is the VMM's memory, vCPUs are its threads, and file I/O through virtio-fs is its I/O.
/// </summary>
internal static class HostLimits
{
    /// <summary>What VMM, proxy processes and page tables need beside the guest's memory, for a container with a memory limit.</summary>
    internal const int OverheadMiB = 128;

    /// <summary>
    /// The same for a container without one, which may have many processes of `exec` at once, and use many files. The limit then is
    /// for the host's other users: it bounds what a guest that has taken over its kernel can use.
    /// </summary>
    internal const int UnlimitedOverheadMiB = 1024;

    /// <summary>
    /// Most threads in the cgroup: about 40 of proxy process, VMM and vCPUs, and a proxy process of eight threads for each process of `exec`.
    /// </summary>
    internal const int MaxThreads = 2048;

    private const ulong DefaultPeriod = 100_000;

    // cpu.shares: the kernel's default, and its largest value (sched/core.c, MAX_SHARES).
    private const ulong DefaultShares = 1024, MaxShares = 1 << 18;
    private const int MiBShift = 20;

    /// <summary>Limits that hold from the VM's start, whether the container has any or not.</summary>
    /// <param name="cgroup">The container's.</param>
    /// <param name="resources">The container's.</param>
    /// <param name="vmMemoryMiB">Of the VM.</param>
    /// <param name="warn">Takes a line for each setting that the host's kernel does not have.</param>
    /// <exception cref="SandboxException">The kernel refuses one.</exception>
    internal static void ApplyAtCreation(HostCgroup cgroup, Resources? resources, int vmMemoryMiB, Action<string> warn)
    {
        int overhead = resources?.Memory?.Limit > 0 ? OverheadMiB : UnlimitedOverheadMiB;
        string threads = Text(MaxThreads);
        SetMemory(cgroup, vmMemoryMiB + overhead);
        _ = cgroup.TryWrite("pids", "pids.max", threads, "pids.max", threads);

        ApplyWeights(cgroup, resources, warn);
    }

    /// <summary>Limits of a container that joins a VM: the guest bounds its processes, on the host there is its proxy and those of `exec`.</summary>
    /// <exception cref="SandboxException">The kernel refuses one.</exception>
    internal static void ApplyToMember(HostCgroup cgroup, Resources? resources, Action<string> warn)
    {
        if (resources?.Memory?.Limit > 0)
        {
            // For callers that watch the cgroup (OutOfMemoryVictim).
            SetMemory(cgroup, OverheadMiB);
        }

        _ = cgroup.TryWrite("pids", "pids.max", Text(MaxThreads), "pids.max", Text(MaxThreads));
        ApplyWeights(cgroup, resources, warn);
    }

    /// <summary>Makes room for a VM in the cgroup of a container that joined it.</summary>
    /// <exception cref="SandboxException">The kernel refuses.</exception>
    internal static void ApplyToVm(HostCgroup cgroup, int vmMemoryMiB)
    {
        SetMemory(cgroup, vmMemoryMiB + UnlimitedOverheadMiB);
        LiftBandwidth(cgroup);
    }

    /// <summary>
    /// Makes room for a VM that grows. When it shrinks the limit stays: the guest gives back what it can, and a limit below what it uses would be
    /// refused, or end it.
    /// </summary>
    /// <exception cref="SandboxException">The kernel refuses.</exception>
    internal static void Grow(HostCgroup cgroup, Resources? resources, int vmMemoryMiB) =>
        SetMemory(cgroup, vmMemoryMiB + (resources?.Memory?.Limit > 0 ? OverheadMiB : UnlimitedOverheadMiB));

    /// <summary>Takes the limit of CPU time away.</summary>
    /// <exception cref="SandboxException">The kernel refuses.</exception>
    internal static void LiftBandwidth(HostCgroup cgroup) => _ = cgroup.TryWrite("cpu", "cpu.cfs_quota_us", "-1", "cpu.max", "max");

    /// <summary>Gives a cgroup the sum of several containers' CPU shares: a pod's first container has hardly any of its own.</summary>
    /// <param name="cgroup">The cgroup.</param>
    /// <param name="shares">Of each container (cpu.shares); null or 0 is the kernel's default.</param>
    /// <exception cref="SandboxException">The kernel refuses.</exception>
    internal static void SetShares(HostCgroup cgroup, IEnumerable<ulong?> shares)
    {
        ulong sum = shares.Aggregate(0ul, (all, s) => all + Math.Min(s is null or 0 ? DefaultShares : s.Value, MaxShares));
        WriteShares(cgroup, Math.Min(sum, MaxShares));
    }

    /// <summary>What may be updated while the container runs.</summary>
    /// <exception cref="SandboxException">The kernel refuses a limit.</exception>
    internal static void Update(HostCgroup cgroup, Resources? resources, Action<string> warn)
    {
        ApplyWeights(cgroup, resources, warn);
        ApplyAtStart(cgroup, resources);
    }

    /// <summary>CPU bandwidth: it holds from the container's start, since the boot of the VM is not the container's work.</summary>
    /// <exception cref="SandboxException">The kernel refuses it.</exception>
    internal static void ApplyAtStart(HostCgroup cgroup, Resources? resources)
    {
        if (resources?.Cpu is not { } cpu || (cpu.Quota is null or 0 && cpu.Period is null or 0))
        {
            return;
        }

        ulong period = cpu.Period is null or 0 ? DefaultPeriod : cpu.Period.Value;
        long quota = cpu.Quota > 0 ? cpu.Quota.Value : -1;
        string max = $"{(quota < 0 ? "max" : Text(quota))} {period.ToString(CultureInfo.InvariantCulture)}";
        void WritePeriod() => _ = cgroup.TryWrite("cpu", "cpu.cfs_period_us", period.ToString(CultureInfo.InvariantCulture), "cpu.max", max);
        bool again = false;
        try
        {
            WritePeriod();
        }
        catch (SandboxException e) when (quota > 0 && e.InnerException is LinuxException { Errno: Errno.EINVAL })
        {
            // With the old quota the new period would be a larger share than a parent has: the quota goes first, as runc does.
            again = true;
        }

        _ = cgroup.TryWrite("cpu", "cpu.cfs_quota_us", Text(quota), "", "");
        if (again)
        {
            WritePeriod();
        }
    }

    private static void SetMemory(HostCgroup cgroup, int mebibytes)
    {
        string bytes = Text((long)mebibytes << MiBShift);
        _ = cgroup.TryWrite("memory", "memory.limit_in_bytes", bytes, "memory.max", bytes);
    }

    private static void ApplyWeights(HostCgroup cgroup, Resources? resources, Action<string> warn)
    {
        if (resources?.Cpu?.Shares is > 0 and var shares)
        {
            WriteShares(cgroup, shares);
        }

        Set(cgroup, "cpuset.cpus", resources?.Cpu?.Cpus);
        Set(cgroup, "cpuset.mems", resources?.Cpu?.Mems);
        BlockIoLimits.Apply(cgroup, resources?.BlockIO, warn);
    }

    private static void WriteShares(HostCgroup cgroup, ulong shares) => _ = cgroup.TryWrite(
        "cpu", "cpu.shares", shares.ToString(CultureInfo.InvariantCulture), "cpu.weight", CgroupSettings.CpuWeight(shares).ToString(CultureInfo.InvariantCulture));

    private static void Set(HostCgroup cgroup, string file, string? value)
    {
        if (!string.IsNullOrEmpty(value))
        {
            _ = cgroup.TryWrite("cpuset", file, value, file, value);
        }
    }

    private static string Text(long value) => value.ToString(CultureInfo.InvariantCulture);
}
