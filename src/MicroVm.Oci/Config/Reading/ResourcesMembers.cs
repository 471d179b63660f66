using MicroVm.Json;

namespace MicroVm.Oci.Config.Reading;

/// <summary>The members that config-linux.md, "Control groups" defines, and where they go.</summary>
internal static class ResourcesMembers
{
    internal static readonly Members<DeviceRule> DeviceRule = Members.Of<DeviceRule>(
        ("allow", static (v, ref json) => v.Allow = json.Flag()),
        ("type", static (v, ref json) => v.Type = json.Text()),
        ("major", static (v, ref json) => v.Major = json.Int64()),
        ("minor", static (v, ref json) => v.Minor = json.Int64()),
        ("access", static (v, ref json) => v.Access = json.Text()));

    internal static readonly Members<MemoryResources> MemoryResources = Members.Of<MemoryResources>(
        ("limit", static (v, ref json) => v.Limit = json.Int64()),
        ("reservation", static (v, ref json) => v.Reservation = json.Int64()),
        ("swap", static (v, ref json) => v.Swap = json.Int64()),
        ("kernel", static (v, ref json) => v.Kernel = json.Int64()),
        ("kernelTCP", static (v, ref json) => v.KernelTCP = json.Int64()),
        ("swappiness", static (v, ref json) => v.Swappiness = json.UInt64()),
        ("disableOOMKiller", static (v, ref json) => v.DisableOOMKiller = json.Flag()),
        ("useHierarchy", static (v, ref json) => v.UseHierarchy = json.Flag()),
        ("checkBeforeUpdate", static (v, ref json) => v.CheckBeforeUpdate = json.Flag()));

    internal static readonly Members<CpuResources> CpuResources = Members.Of<CpuResources>(
        ("shares", static (v, ref json) => v.Shares = json.UInt64()),
        ("quota", static (v, ref json) => v.Quota = json.Int64()),
        ("burst", static (v, ref json) => v.Burst = json.UInt64()),
        ("period", static (v, ref json) => v.Period = json.UInt64()),
        ("realtimeRuntime", static (v, ref json) => v.RealtimeRuntime = json.Int64()),
        ("realtimePeriod", static (v, ref json) => v.RealtimePeriod = json.UInt64()),
        ("cpus", static (v, ref json) => v.Cpus = json.Text()),
        ("mems", static (v, ref json) => v.Mems = json.Text()),
        ("idle", static (v, ref json) => v.Idle = json.Int64()));

    internal static readonly Members<PidsResources> PidsResources = Members.Of<PidsResources>(
        ("limit", static (v, ref json) => v.Limit = json.Int64()));

    internal static readonly Members<WeightDevice> WeightDevice = Members.Of<WeightDevice>(
        ("major", static (v, ref json) => v.Major = json.Int64()),
        ("minor", static (v, ref json) => v.Minor = json.Int64()),
        ("weight", static (v, ref json) => v.Weight = json.UInt16()),
        ("leafWeight", static (v, ref json) => v.LeafWeight = json.UInt16()));

    internal static readonly Members<ThrottleDevice> ThrottleDevice = Members.Of<ThrottleDevice>(
        ("major", static (v, ref json) => v.Major = json.Int64()),
        ("minor", static (v, ref json) => v.Minor = json.Int64()),
        ("rate", static (v, ref json) => v.Rate = json.UInt64()));

    internal static readonly Members<BlockIoResources> BlockIoResources = Members.Of<BlockIoResources>(
        ("weight", static (v, ref json) => v.Weight = json.UInt16()),
        ("leafWeight", static (v, ref json) => v.LeafWeight = json.UInt16()),
        ("weightDevice", static (v, ref json) => v.WeightDevice = json.List(WeightDevice)),
        ("throttleReadBpsDevice", static (v, ref json) => v.ThrottleReadBpsDevice = json.List(ThrottleDevice)),
        ("throttleWriteBpsDevice", static (v, ref json) => v.ThrottleWriteBpsDevice = json.List(ThrottleDevice)),
        ("throttleReadIOPSDevice", static (v, ref json) => v.ThrottleReadIOPSDevice = json.List(ThrottleDevice)),
        ("throttleWriteIOPSDevice", static (v, ref json) => v.ThrottleWriteIOPSDevice = json.List(ThrottleDevice)));

    internal static readonly Members<HugepageLimit> HugepageLimit = Members.Of<HugepageLimit>(
        ("pageSize", static (v, ref json) => v.PageSize = json.Text()),
        ("limit", static (v, ref json) => v.Limit = json.UInt64()));

    internal static readonly Members<InterfacePriority> InterfacePriority = Members.Of<InterfacePriority>(
        ("name", static (v, ref json) => v.Name = json.Text()),
        ("priority", static (v, ref json) => v.Priority = json.UInt32()));

    internal static readonly Members<NetworkResources> NetworkResources = Members.Of<NetworkResources>(
        ("classID", static (v, ref json) => v.ClassID = json.UInt32()),
        ("priorities", static (v, ref json) => v.Priorities = json.List(InterfacePriority)));

    internal static readonly Members<RdmaResources> RdmaResources = Members.Of<RdmaResources>(
        ("hcaHandles", static (v, ref json) => v.HcaHandles = json.UInt32()),
        ("hcaObjects", static (v, ref json) => v.HcaObjects = json.UInt32()));

    internal static readonly Members<Resources> Resources = Members.Of<Resources>(
        ("devices", static (v, ref json) => v.Devices = json.List(DeviceRule)),
        ("memory", static (v, ref json) => v.Memory = json.Object(MemoryResources)),
        ("cpu", static (v, ref json) => v.Cpu = json.Object(CpuResources)),
        ("pids", static (v, ref json) => v.Pids = json.Object(PidsResources)),
        ("blockIO", static (v, ref json) => v.BlockIO = json.Object(BlockIoResources)),
        ("hugepageLimits", static (v, ref json) => v.HugepageLimits = json.List(HugepageLimit)),
        ("network", static (v, ref json) => v.Network = json.Object(NetworkResources)),
        ("rdma", static (v, ref json) => v.Rdma = json.Map(RdmaResources)),
        ("unified", static (v, ref json) => v.Unified = json.TextMap()));
}
