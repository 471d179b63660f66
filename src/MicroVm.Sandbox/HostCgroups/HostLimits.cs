using System.Globalization;
using MicroVm.Oci.Cgroups;
using MicroVm.Oci.Config;

namespace MicroVm.Sandbox.HostCgroups;

/// <summary>
/// The container's limits on the host's side. The guest enforces them on the container's processes; here they bound the
/// whole VM: guest memory is the VMM's memory, vCPUs are its threads, and file I/O through virtio-fs is its I/O.
/// </summary>
internal static class HostLimits
{
    /// <summary>What VMM, stand-ins and page tables need beside the guest's memory.</summary>
    internal const int OverheadMiB = 128;

    private const ulong DefaultPeriod = 100_000;
    private const int MiBShift = 20;

    /// <summary>Limits that hold from the VM's start. A container without memory limit has none here.</summary>
    /// <exception cref="SandboxException">The kernel refuses one.</exception>
    internal static void ApplyAtCreation(HostCgroup cgroup, Resources? resources, int vmMemoryMiB)
    {
        if (resources?.Memory?.Limit > 0)
        {
            string bytes = Text((long)(vmMemoryMiB + OverheadMiB) << MiBShift);
            _ = cgroup.TryWrite("memory", "memory.limit_in_bytes", bytes, "memory.max", bytes);
        }

        ApplyWeights(cgroup, resources);
    }

    /// <summary>What may be updated while the container runs.</summary>
    /// <exception cref="SandboxException">The kernel refuses a limit.</exception>
    internal static void Update(HostCgroup cgroup, Resources? resources)
    {
        ApplyWeights(cgroup, resources);
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
        _ = cgroup.TryWrite("cpu", "cpu.cfs_period_us", period.ToString(CultureInfo.InvariantCulture), "cpu.max", max);
        _ = cgroup.TryWrite("cpu", "cpu.cfs_quota_us", Text(quota), "", "");
    }

    private static void ApplyWeights(HostCgroup cgroup, Resources? resources)
    {
        if (resources?.Cpu?.Shares is > 0 and var shares)
        {
            _ = cgroup.TryWrite("cpu", "cpu.shares", shares.ToString(CultureInfo.InvariantCulture), "cpu.weight", CgroupSettings.CpuWeight(shares).ToString(CultureInfo.InvariantCulture));
        }

        Set(cgroup, "cpuset.cpus", resources?.Cpu?.Cpus);
        Set(cgroup, "cpuset.mems", resources?.Cpu?.Mems);
        BlockIo(cgroup, resources?.BlockIO);
    }

    private static void Set(HostCgroup cgroup, string file, string? value)
    {
        if (!string.IsNullOrEmpty(value))
        {
            _ = cgroup.TryWrite("cpuset", file, value, file, value);
        }
    }

    private static void BlockIo(HostCgroup cgroup, BlockIoResources? io)
    {
        if (io?.Weight is > 0 and var weight)
        {
            string v1 = weight.ToString(CultureInfo.InvariantCulture);
            _ = cgroup.TryWrite("blkio", "blkio.weight", v1, "io.bfq.weight", v1);
        }

        foreach ((List<ThrottleDevice>? devices, string v1, string key) in new[]
        {
            (io?.ThrottleReadBpsDevice, "read_bps_device", "rbps"), (io?.ThrottleWriteBpsDevice, "write_bps_device", "wbps"),
            (io?.ThrottleReadIOPSDevice, "read_iops_device", "riops"), (io?.ThrottleWriteIOPSDevice, "write_iops_device", "wiops"),
        })
        {
            foreach (ThrottleDevice d in devices ?? [])
            {
                string rate = (d.Rate ?? 0).ToString(CultureInfo.InvariantCulture), number = $"{d.Major}:{d.Minor}";
                _ = cgroup.TryWrite("blkio", "blkio.throttle." + v1, $"{number} {rate}", "io.max", $"{number} {key}={(d.Rate is > 0 ? rate : "max")}");
            }
        }
    }

    private static string Text(long value) => value.ToString(CultureInfo.InvariantCulture);
}
