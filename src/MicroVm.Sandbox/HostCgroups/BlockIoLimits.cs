using System.Globalization;
using MicroVm.Oci.Config;

namespace MicroVm.Sandbox.HostCgroups;

/// <summary>
/// Block I/O settings of the container's cgroup on the host, where the VMM reads and writes the container's files. Weights have
/// another file on each kind of kernel: CFQ's before Linux 5.0, BFQ's where that scheduler is loaded, version 2's own.
/// </summary>
internal static class BlockIoLimits
{
    /// <summary>Writes what is set.</summary>
    /// <param name="cgroup">The container's.</param>
    /// <param name="io">The settings.</param>
    /// <param name="warn">Takes a line for each setting that the host's kernel does not have.</param>
    /// <exception cref="SandboxException">The kernel refuses one.</exception>
    internal static void Apply(HostCgroup cgroup, BlockIoResources? io, Action<string> warn)
    {
        if (io is null)
        {
            return;
        }

        Weight(cgroup, io.Weight, "", "weight", warn);
        LeafWeight(cgroup, io.LeafWeight, "", "leafWeight", warn);
        foreach (WeightDevice device in io.WeightDevice ?? [])
        {
            string number = $"{device.Major}:{device.Minor} ";
            Weight(cgroup, device.Weight, number, "weightDevice", warn);
            LeafWeight(cgroup, device.LeafWeight, number, "weightDevice.leafWeight", warn);
        }

        foreach ((List<ThrottleDevice>? devices, string v1, string key) in new[]
        {
            (io.ThrottleReadBpsDevice, "read_bps_device", "rbps"), (io.ThrottleWriteBpsDevice, "write_bps_device", "wbps"),
            (io.ThrottleReadIOPSDevice, "read_iops_device", "riops"), (io.ThrottleWriteIOPSDevice, "write_iops_device", "wiops"),
        })
        {
            foreach (ThrottleDevice d in devices ?? [])
            {
                string rate = (d.Rate ?? 0).ToString(CultureInfo.InvariantCulture), number = $"{d.Major}:{d.Minor}";
                if (!cgroup.TryWrite("blkio", "blkio.throttle." + v1, $"{number} {rate}", "io.max", $"{number} {key}={(d.Rate is > 0 ? rate : "max")}"))
                {
                    warn($"linux.resources.blockIO: {v1} of {number} has no effect: the host's kernel has no block I/O throttling");
                }
            }
        }
    }

    /// <summary>The files that are tried, in order: version 1's two, beside them version 2's two.</summary>
    private static void Weight(HostCgroup cgroup, ushort? weight, string device, string what, Action<string> warn)
    {
        if (weight is null or 0)
        {
            return;
        }

        string suffix = device.Length == 0 ? "" : "_device";
        string value = device + weight.Value.ToString(CultureInfo.InvariantCulture);
        string converted = device + IoWeight(weight.Value).ToString(CultureInfo.InvariantCulture);
        if (!cgroup.TryWrite("blkio", "blkio.weight" + suffix, value, "io.bfq.weight", value)
            && !cgroup.TryWrite("blkio", "blkio.bfq.weight" + suffix, value, "io.weight", converted))
        {
            warn($"linux.resources.blockIO.{what} {value} has no effect: the host's kernel has no block I/O weights (blkio.weight, blkio.bfq.weight, io.bfq.weight, io.weight)");
        }
    }

    private static void LeafWeight(HostCgroup cgroup, ushort? weight, string device, string what, Action<string> warn)
    {
        if (weight is not (null or 0) && device + weight.Value.ToString(CultureInfo.InvariantCulture) is var value
            && !cgroup.TryWrite("blkio", device.Length == 0 ? "blkio.leaf_weight" : "blkio.leaf_weight_device", value, "", ""))
        {
            warn($"linux.resources.blockIO.{what} {value} has no effect: kernels since Linux 5.0 have no leaf weights");
        }
    }

    /// <summary>io.weight (1 to 10000) for a weight of 10 to 1000, as runc converts it.</summary>
    internal static int IoWeight(int weight) => 1 + ((weight - 10) * 9999 / 990);
}
