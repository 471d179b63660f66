using MicroVm.Json;

namespace MicroVm.VmmControl;

/// <summary>
/// A request on the VMM's control socket: one JSON object on a line, answered by one <see cref="ControlResponse"/> on a
/// line, in order. Descriptors travel beside the line that names them, by SCM_RIGHTS.
/// </summary>
public sealed record ControlRequest : IJsonRecord
{
    /// <summary>What a request has before its operation is read.</summary>
    internal const ControlOperation NoOperation = (ControlOperation)(-1);

    /// <summary>What to do.</summary>
    public required ControlOperation Operation { get; set; }

    /// <summary>For <see cref="ControlOperation.AddExport"/> and RemoveExport: the virtio-fs tag.</summary>
    public string? Tag { get; set; }

    /// <summary>For AddExport (the descriptor comes by SCM_RIGHTS; FileReference is ignored) and RemoveExport: the entry's name.</summary>
    public string? Name { get; set; }

    /// <summary>For AddExport.</summary>
    public bool ReadOnly { get; set; }

    /// <summary>For AddExport: as <see cref="FsExport.HidesMounts"/>.</summary>
    public bool HidesMounts { get; set; }

    /// <summary>For AddExport: as <see cref="FsExport.SharesSockets"/>.</summary>
    public bool SharesSockets { get; set; }

    /// <summary>For AddExport: how the guest may cache it.</summary>
    public FsCache Cache { get; set; } = FsCache.Exclusive;

    /// <summary>For <see cref="ControlOperation.AttachNet"/>, DetachNet and SetNetLink: index in <see cref="VmmConfig.Net"/>.</summary>
    public int Index { get; set; }

    /// <summary>For AttachNet: the interface; its tap comes by SCM_RIGHTS, a descriptor for each queue pair.</summary>
    public NetAttachment? Interface { get; set; }

    /// <summary>For SetNetLink.</summary>
    public bool Up { get; set; }

    /// <summary>For SetNetLink: the interface's address, where it is another now.</summary>
    public string? Mac { get; set; }

    /// <summary>For SetNetLink: the interface's MTU, where it is another now.</summary>
    public int? Mtu { get; set; }

    /// <summary>For <see cref="ControlOperation.ResizeMemory"/>: MiB beyond <see cref="VmmConfig.MemoryMiB"/>, up to <see cref="VmmConfig.GrowthMiB"/>; even.</summary>
    public int AddedMiB { get; set; }

    /// <summary>For <see cref="ControlOperation.ResizeVcpus"/>: how many run the guest, 1 to <see cref="VmmConfig.MaxVcpus"/>.</summary>
    public int Vcpus { get; set; }

    string? IJsonRecord.Missing => Operation == NoOperation ? "operation" : null;

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Operation = members.Named("operation"u8, Operation, EnumNames.ControlOperation);
        Tag = members.Text("tag"u8, Tag);
        Name = members.Text("name"u8, Name);
        ReadOnly = members.Flag("readOnly"u8, ReadOnly);
        HidesMounts = members.Flag("hidesMounts"u8, HidesMounts);
        SharesSockets = members.Flag("sharesSockets"u8, SharesSockets);
        Cache = members.Named("cache"u8, Cache, EnumNames.FsCache);
        Index = members.Number("index"u8, Index);
        Interface = members.Object("interface"u8, Interface, static () => new NetAttachment { Mac = null! });
        Up = members.Flag("up"u8, Up);
        Mac = members.Text("mac"u8, Mac);
        Mtu = members.Number("mtu"u8, Mtu);
        AddedMiB = members.Number("addedMiB"u8, AddedMiB);
        Vcpus = members.Number("vcpus"u8, Vcpus);
    }
}

/// <summary>The operations of the control socket.</summary>
public enum ControlOperation
{
    /// <summary>State, counters and times: <see cref="VmmInfo"/>.</summary>
    Info,

    /// <summary>Stops the vCPUs.</summary>
    Pause,

    /// <summary>Lets the vCPUs run on.</summary>
    Resume,

    /// <summary>Ends the VMM with <see cref="VmmExitCode.Stopped"/>.</summary>
    Stop,

    /// <summary>Adds an entry to a virtio-fs root directory.</summary>
    AddExport,

    /// <summary>Removes an entry from a virtio-fs root directory.</summary>
    RemoveExport,

    /// <summary>Puts a network interface behind a window that has none; the guest's driver is then to be bound to it.</summary>
    AttachNet,

    /// <summary>Tells the guest that a network interface's link is up or down; and keeps to another address or MTU from now on.</summary>
    SetNetLink,

    /// <summary>Takes a network interface away, which leaves a free window. The guest's driver must have let go of it.</summary>
    DetachNet,

    /// <summary>
    /// Writes the VM into the two empty files that come by SCM_RIGHTS, state and memory, and ends the VMM with
    /// <see cref="VmmExitCode.Stopped"/>, also when that fails. Only where <see cref="VmmConfig.Saves"/> is set.
    /// </summary>
    Save,

    /// <summary>Asks the guest to plug or unplug RAM until so much is added to what it booted with. It may take a while, or not do it.</summary>
    ResizeMemory,

    /// <summary>The steps of the VMM's start: <see cref="ControlResponse.Steps"/>.</summary>
    Trace,

    /// <summary>
    /// Has so many vCPUs run the guest, and the others stand still: the guest's kernel must have taken those off line, and brings on line
    /// itself what is added. Answered when it is done.
    /// </summary>
    ResizeVcpus,
}

/// <summary>The answer to a <see cref="ControlRequest"/>.</summary>
public sealed record ControlResponse : IJsonDocument<ControlResponse>
{
    /// <summary>Null when the request was carried out; else why not.</summary>
    public string? Error { get; set; }

    /// <summary>For <see cref="ControlOperation.Info"/>.</summary>
    public VmmInfo? Info { get; set; }

    /// <summary>For <see cref="ControlOperation.Trace"/>.</summary>
    public List<TraceStep>? Steps { get; set; }

    /// <inheritdoc/>
    public static ControlResponse Empty() => new();

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Error = members.Text("error"u8, Error);
        Info = members.Object("info"u8, Info, VmmInfo.Empty);
        Steps = members.Objects("steps"u8, Steps);
    }
}

/// <summary>What a VMM says of itself.</summary>
public sealed record VmmInfo : IJsonRecord
{
    /// <summary>"running" or "paused".</summary>
    public required string State { get; set; }

    /// <summary>Process id of the VMM.</summary>
    public required int Pid { get; set; }

    /// <summary>"standard" or "pvm" (KVM emulates the guest's kernel code).</summary>
    public required string HostKind { get; set; }

    /// <summary>The whole command line that the kernel was given.</summary>
    public required string CommandLine { get; set; }

    /// <summary>Microseconds from the start of the process to the first KVM_RUN.</summary>
    public long StartMicroseconds { get; set; }

    /// <summary>Counters by dotted name: <c>exits.mmio</c>, <c>assist.xrstor</c>, <c>vsock.rx.bytes</c>...</summary>
    public IReadOnlyDictionary<string, long> Counters { get; set; } = new Dictionary<string, long>();

    string? IJsonRecord.Missing => State is null ? "state" : HostKind is null ? "hostKind" : CommandLine is null ? "commandLine" : null;

    internal static VmmInfo Empty() => new() { State = null!, Pid = 0, HostKind = null!, CommandLine = null! };

    void IJsonRecord.Members(ref JsonMembers members)
    {
        State = members.NonNullText("state"u8, State);
        Pid = members.Number("pid"u8, Pid);
        HostKind = members.NonNullText("hostKind"u8, HostKind);
        CommandLine = members.NonNullText("commandLine"u8, CommandLine);
        StartMicroseconds = members.Number("startMicroseconds"u8, StartMicroseconds);
        Counters = members.NumberMap("counters"u8, Counters);
    }
}
