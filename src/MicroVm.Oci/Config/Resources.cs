using MicroVm.Json;

namespace MicroVm.Oci.Config;

#pragma warning disable CS1591 // named and documented by the runtime specification: config-linux.md, "Control groups"
/// <summary>config-linux.md, "Control groups": limits; also the input of <c>update --resources</c>.</summary>
public sealed record Resources : IJsonRecord
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

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Devices = members.Objects("devices"u8, Devices);
        Memory = members.Object("memory"u8, Memory);
        Cpu = members.Object("cpu"u8, Cpu);
        Pids = members.Object("pids"u8, Pids);
        BlockIO = members.Object("blockIO"u8, BlockIO);
        HugepageLimits = members.Objects("hugepageLimits"u8, HugepageLimits);
        Network = members.Object("network"u8, Network);
        Rdma = members.ObjectMap("rdma"u8, Rdma);
        Unified = members.TextMap("unified"u8, Unified);
    }
}

/// <summary>config-linux.md, "Allowed Device list".</summary>
public sealed record DeviceRule : IJsonRecord
{
    public bool? Allow { get; set; }

    public string? Type { get; set; }

    public long? Major { get; set; }

    public long? Minor { get; set; }

    public string? Access { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Allow = members.Flag("allow"u8, Allow);
        Type = members.Text("type"u8, Type);
        Major = members.Number("major"u8, Major);
        Minor = members.Number("minor"u8, Minor);
        Access = members.Text("access"u8, Access);
    }
}

/// <summary>Bytes; -1 is unlimited.</summary>
public sealed record MemoryResources : IJsonRecord
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

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Limit = members.Number("limit"u8, Limit);
        Reservation = members.Number("reservation"u8, Reservation);
        Swap = members.Number("swap"u8, Swap);
        Kernel = members.Number("kernel"u8, Kernel);
        KernelTCP = members.Number("kernelTCP"u8, KernelTCP);
        Swappiness = members.Number("swappiness"u8, Swappiness);
        DisableOOMKiller = members.Flag("disableOOMKiller"u8, DisableOOMKiller);
        UseHierarchy = members.Flag("useHierarchy"u8, UseHierarchy);
        CheckBeforeUpdate = members.Flag("checkBeforeUpdate"u8, CheckBeforeUpdate);
    }
}

/// <summary>Times are microseconds.</summary>
public sealed record CpuResources : IJsonRecord
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

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Shares = members.Number("shares"u8, Shares);
        Quota = members.Number("quota"u8, Quota);
        Burst = members.Number("burst"u8, Burst);
        Period = members.Number("period"u8, Period);
        RealtimeRuntime = members.Number("realtimeRuntime"u8, RealtimeRuntime);
        RealtimePeriod = members.Number("realtimePeriod"u8, RealtimePeriod);
        Cpus = members.Text("cpus"u8, Cpus);
        Mems = members.Text("mems"u8, Mems);
        Idle = members.Number("idle"u8, Idle);
    }
}

/// <summary>config-linux.md, "PIDs".</summary>
public sealed record PidsResources : IJsonRecord
{
    public long? Limit { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Limit = members.Number("limit"u8, Limit);
    }
}

/// <summary>config-linux.md, "Block IO".</summary>
public sealed record BlockIoResources : IJsonRecord
{
    public ushort? Weight { get; set; }

    public ushort? LeafWeight { get; set; }

    public List<WeightDevice>? WeightDevice { get; set; }

    public List<ThrottleDevice>? ThrottleReadBpsDevice { get; set; }

    public List<ThrottleDevice>? ThrottleWriteBpsDevice { get; set; }

    public List<ThrottleDevice>? ThrottleReadIOPSDevice { get; set; }

    public List<ThrottleDevice>? ThrottleWriteIOPSDevice { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Weight = members.Number("weight"u8, Weight);
        LeafWeight = members.Number("leafWeight"u8, LeafWeight);
        WeightDevice = members.Objects("weightDevice"u8, WeightDevice);
        ThrottleReadBpsDevice = members.Objects("throttleReadBpsDevice"u8, ThrottleReadBpsDevice);
        ThrottleWriteBpsDevice = members.Objects("throttleWriteBpsDevice"u8, ThrottleWriteBpsDevice);
        ThrottleReadIOPSDevice = members.Objects("throttleReadIOPSDevice"u8, ThrottleReadIOPSDevice);
        ThrottleWriteIOPSDevice = members.Objects("throttleWriteIOPSDevice"u8, ThrottleWriteIOPSDevice);
    }
}

/// <summary>A block device's weight.</summary>
public sealed record WeightDevice : IJsonRecord
{
    public long? Major { get; set; }

    public long? Minor { get; set; }

    public ushort? Weight { get; set; }

    public ushort? LeafWeight { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Major = members.Number("major"u8, Major);
        Minor = members.Number("minor"u8, Minor);
        Weight = members.Number("weight"u8, Weight);
        LeafWeight = members.Number("leafWeight"u8, LeafWeight);
    }
}

/// <summary>A block device's rate: bytes or operations per second.</summary>
public sealed record ThrottleDevice : IJsonRecord
{
    public long? Major { get; set; }

    public long? Minor { get; set; }

    public ulong? Rate { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Major = members.Number("major"u8, Major);
        Minor = members.Number("minor"u8, Minor);
        Rate = members.Number("rate"u8, Rate);
    }
}

/// <summary>config-linux.md, "Huge page limits".</summary>
public sealed record HugepageLimit : IJsonRecord
{
    public string? PageSize { get; set; }

    public ulong? Limit { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        PageSize = members.Text("pageSize"u8, PageSize);
        Limit = members.Number("limit"u8, Limit);
    }
}

/// <summary>config-linux.md, "Network": cgroup v1's net_cls and net_prio.</summary>
public sealed record NetworkResources : IJsonRecord
{
    public uint? ClassID { get; set; }

    public List<InterfacePriority>? Priorities { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        ClassID = members.Number("classID"u8, ClassID);
        Priorities = members.Objects("priorities"u8, Priorities);
    }
}

/// <summary>net_prio's priority of an interface.</summary>
public sealed record InterfacePriority : IJsonRecord
{
    public string? Name { get; set; }

    public uint? Priority { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Name = members.Text("name"u8, Name);
        Priority = members.Number("priority"u8, Priority);
    }
}

/// <summary>config-linux.md, "RDMA".</summary>
public sealed record RdmaResources : IJsonRecord
{
    public uint? HcaHandles { get; set; }

    public uint? HcaObjects { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        HcaHandles = members.Number("hcaHandles"u8, HcaHandles);
        HcaObjects = members.Number("hcaObjects"u8, HcaObjects);
    }
}
