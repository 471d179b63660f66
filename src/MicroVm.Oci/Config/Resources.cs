namespace MicroVm.Oci.Config;

#pragma warning disable CS1591 // named and documented by the runtime specification: config-linux.md, "Control groups"
/// <summary>config-linux.md, "Control groups": limits; also the input of <c>update --resources</c>.</summary>
public sealed record Resources
{
    public List<DeviceRule>? Devices { get; set; }

    public MemoryResources? Memory { get; set; }

    public CpuResources? Cpu { get; set; }

    public PidsResources? Pids { get; set; }

    public BlockIoResources? BlockIO { get; set; }

    public List<HugepageLimit>? HugepageLimits { get; set; }

    public NetworkResources? Network { get; set; }

    public SortedDictionary<string, RdmaResources>? Rdma { get; set; }

    public SortedDictionary<string, string>? Unified { get; set; }
}

/// <summary>config-linux.md, "Allowed Device list".</summary>
public sealed record DeviceRule
{
    public bool? Allow { get; set; }

    public string? Type { get; set; }

    public long? Major { get; set; }

    public long? Minor { get; set; }

    public string? Access { get; set; }
}

/// <summary>Bytes; -1 is unlimited.</summary>
public sealed record MemoryResources
{
    public long? Limit { get; set; }

    public long? Reservation { get; set; }

    public long? Swap { get; set; }

    public long? Kernel { get; set; }

    public long? KernelTCP { get; set; }

    public ulong? Swappiness { get; set; }

    public bool? DisableOOMKiller { get; set; }

    public bool? UseHierarchy { get; set; }

    public bool? CheckBeforeUpdate { get; set; }
}

/// <summary>Times are microseconds.</summary>
public sealed record CpuResources
{
    public ulong? Shares { get; set; }

    public long? Quota { get; set; }

    public ulong? Burst { get; set; }

    public ulong? Period { get; set; }

    public long? RealtimeRuntime { get; set; }

    public ulong? RealtimePeriod { get; set; }

    public string? Cpus { get; set; }

    public string? Mems { get; set; }

    public long? Idle { get; set; }
}

/// <summary>config-linux.md, "PIDs".</summary>
public sealed record PidsResources
{
    public long? Limit { get; set; }
}

/// <summary>config-linux.md, "Block IO".</summary>
public sealed record BlockIoResources
{
    public ushort? Weight { get; set; }

    public ushort? LeafWeight { get; set; }

    public List<WeightDevice>? WeightDevice { get; set; }

    public List<ThrottleDevice>? ThrottleReadBpsDevice { get; set; }

    public List<ThrottleDevice>? ThrottleWriteBpsDevice { get; set; }

    public List<ThrottleDevice>? ThrottleReadIOPSDevice { get; set; }

    public List<ThrottleDevice>? ThrottleWriteIOPSDevice { get; set; }
}

/// <summary>A block device's weight.</summary>
public sealed record WeightDevice
{
    public long? Major { get; set; }

    public long? Minor { get; set; }

    public ushort? Weight { get; set; }

    public ushort? LeafWeight { get; set; }
}

/// <summary>A block device's rate: bytes or operations per second.</summary>
public sealed record ThrottleDevice
{
    public long? Major { get; set; }

    public long? Minor { get; set; }

    public ulong? Rate { get; set; }
}

/// <summary>config-linux.md, "Huge page limits".</summary>
public sealed record HugepageLimit
{
    public string? PageSize { get; set; }

    public ulong? Limit { get; set; }
}

/// <summary>config-linux.md, "Network": cgroup v1's net_cls and net_prio.</summary>
public sealed record NetworkResources
{
    public uint? ClassID { get; set; }

    public List<InterfacePriority>? Priorities { get; set; }
}

/// <summary>net_prio's priority of an interface.</summary>
public sealed record InterfacePriority
{
    public string? Name { get; set; }

    public uint? Priority { get; set; }
}

/// <summary>config-linux.md, "RDMA".</summary>
public sealed record RdmaResources
{
    public uint? HcaHandles { get; set; }

    public uint? HcaObjects { get; set; }
}
