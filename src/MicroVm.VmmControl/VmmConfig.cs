using MicroVm.Json;

namespace MicroVm.VmmControl;

/// <summary>
/// The configuration of <c>microvm-vmm</c>: one JSON object, read from <c>--config FILE</c> or
/// <c>--config-fd N</c>. Files are given by descriptor (inherited) or, for use by hand, by path.
/// </summary>
/// <remarks>
/// Optional members are settable, not init-only: the JSON source generator assigns every init-only member, absent ones
/// too, and their defaults would be lost.
/// </remarks>
public sealed record VmmConfig : IJsonRecord
{
    /// <summary>The KVM device; /dev/kvm when null.</summary>
    public FileReference? Kvm { get; set; }

    /// <summary>The process's own /proc/self/fd, for a jail that shows no /proc; opened by path when null.</summary>
    public FileReference? ProcSelfFd { get; set; }

    /// <summary>Guest kernel: an ELF vmlinux or a bzImage. May be null beside <see cref="PvmKernel"/>: the VM then boots on PVM hosts only.</summary>
    public FileReference? Kernel { get; set; }

    /// <summary>The kernel to boot in place of <see cref="Kernel"/> where the host's KVM is PVM; none when null.</summary>
    public FileReference? PvmKernel { get; set; }

    /// <summary>Initial RAM file system, a cpio archive; none when null.</summary>
    public FileReference? Initrd { get; set; }

    /// <summary>
    /// The kernel's command line, without what the VMM adds itself (the virtio-mmio devices, and what the kind of host
    /// needs).
    /// </summary>
    public string CommandLine { get; set; } = "";

    /// <summary>Guest RAM in MiB, at least 16.</summary>
    public int MemoryMiB { get; set; } = 128;

    /// <summary>Back guest RAM with 2 MiB pages from the host's pool.</summary>
    public bool HugePages { get; set; }

    /// <summary>Number of vCPUs, 1 to 32.</summary>
    public int Vcpus { get; set; } = 1;

    /// <summary>
    /// How many vCPUs there may be while the VM runs (<see cref="ControlOperation.ResizeVcpus"/>), up to 32; no more than
    /// <see cref="Vcpus"/> when it is not larger.
    /// </summary>
    public int MaxVcpus { get; set; }

    /// <summary>What CPUID tells of the processor: one of <see cref="CpuTemplateNames"/>.</summary>
    public string CpuTemplate { get; set; } = CpuTemplateNames.Host;

    /// <summary>Describe the machine by ACPI (stock kernels), by an MP table, or by both.</summary>
    public MachineTables Tables { get; set; } = MachineTables.Both;

    /// <summary>Where the guest's serial console is written, appended; discarded when null. Early messages and panics only.</summary>
    public FileReference? Serial { get; set; }

    /// <summary>virtio-console; none when null.</summary>
    public ConsoleConfig? Console { get; set; }

    /// <summary>virtio-vsock; none when null.</summary>
    public VsockConfig? Vsock { get; set; }

    /// <summary>virtio-rng, fed by getrandom(2).</summary>
    public bool Entropy { get; set; } = true;

    /// <summary>virtio-balloon with free page reporting: what the guest frees goes back to the host. Not with <see cref="HugePages"/>.</summary>
    public bool Balloon { get; set; }

    /// <summary>
    /// virtio-mem: how many MiB of RAM may be added while the VM runs (<see cref="ControlOperation.ResizeMemory"/>); a multiple of 128, no
    /// device when 0. Not with <see cref="HugePages"/>.
    /// </summary>
    public int GrowthMiB { get; set; }

    /// <summary>virtio-blk disks, vda first.</summary>
    public IReadOnlyList<BlockConfig> Block { get; set; } = [];

    /// <summary>virtio-pmem devices, pmem0 first: file system images that the guest maps from the host's page cache. Read-only.</summary>
    public IReadOnlyList<FileReference> Pmem { get; set; } = [];

    /// <summary>virtio-fs devices.</summary>
    public IReadOnlyList<FsConfig> Fs { get; set; } = [];

    /// <summary>virtio-net devices and, where no tap is given, windows for those that are attached later.</summary>
    public IReadOnlyList<NetConfig> Net { get; set; } = [];

    /// <summary>A connected SOCK_STREAM socket, or a listening one (path), that speaks <see cref="ControlRequest"/>.</summary>
    public FileReference? Control { get; set; }

    /// <summary>
    /// A snapshot to go on from, in place of booting a kernel. Devices, memory and CPUs are configured as they were when it was made;
    /// exports, console and sockets are this VM's own.
    /// </summary>
    public RestoreConfig? Restore { get; set; }

    /// <summary><see cref="ControlOperation.Save"/> is answered: the filter leaves the system calls that it needs.</summary>
    public bool Saves { get; set; }

    /// <summary>Restrict the system calls of every thread by seccomp once the machine is built; anything else ends the VMM with SIGSYS.</summary>
    public bool FilterSystemCalls { get; set; } = true;

    /// <summary>End with SIGKILL when the process that started the VMM ends.</summary>
    public bool DieWithParent { get; set; }

    string? IJsonRecord.Missing => (Kernel ?? PvmKernel) is null && Restore is null ? "kernel" : null;

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Kvm = members.Object("kvm"u8, Kvm);
        ProcSelfFd = members.Object("procSelfFd"u8, ProcSelfFd);
        Kernel = members.Object("kernel"u8, Kernel);
        PvmKernel = members.Object("pvmKernel"u8, PvmKernel);
        Initrd = members.Object("initrd"u8, Initrd);
        CommandLine = members.NonNullText("commandLine"u8, CommandLine);
        MemoryMiB = members.Number("memoryMiB"u8, MemoryMiB);
        HugePages = members.Flag("hugePages"u8, HugePages);
        Vcpus = members.Number("vcpus"u8, Vcpus);
        MaxVcpus = members.Number("maxVcpus"u8, MaxVcpus);
        CpuTemplate = members.NonNullText("cpuTemplate"u8, CpuTemplate);
        Tables = members.Named("tables"u8, Tables, EnumNames.MachineTables);
        Serial = members.Object("serial"u8, Serial);
        Console = members.Object("console"u8, Console);
        Vsock = members.Object("vsock"u8, Vsock, static () => new VsockConfig { SocketPath = null! });
        Entropy = members.Flag("entropy"u8, Entropy);
        Balloon = members.Flag("balloon"u8, Balloon);
        GrowthMiB = members.Number("growthMiB"u8, GrowthMiB);
        Block = members.Objects("block"u8, Block, static () => new BlockConfig { File = null! });
        Pmem = members.Objects("pmem"u8, Pmem, static () => new FileReference());
        Fs = members.Objects("fs"u8, Fs, static () => new FsConfig { Tag = null! });
        Net = members.Objects("net"u8, Net, static () => new NetConfig());
        Control = members.Object("control"u8, Control);
        Restore = members.Object("restore"u8, Restore, static () => new RestoreConfig { State = null!, Memory = null! });
        Saves = members.Flag("saves"u8, Saves);
        FilterSystemCalls = members.Flag("filterSystemCalls"u8, FilterSystemCalls);
        DieWithParent = members.Flag("dieWithParent"u8, DieWithParent);
    }
}

/// <summary>The files of a snapshot (docs/SNAPSHOTS.md).</summary>
public sealed record RestoreConfig : IJsonRecord
{
    /// <summary>The state file.</summary>
    public required FileReference State { get; set; }

    /// <summary>The memory file. It must keep its content while the VM runs.</summary>
    public required FileReference Memory { get; set; }

    /// <summary>Which pages of the memory every start writes: a <see cref="Snapshots.PageSet"/>; null where that is not known.</summary>
    public FileReference? Pages { get; set; }

    string? IJsonRecord.Missing => State is null ? "state" : Memory is null ? "memory" : null;

    void IJsonRecord.Members(ref JsonMembers members)
    {
        State = members.Object("state"u8, State)!;
        Memory = members.Object("memory"u8, Memory)!;
        Pages = members.Object("pages"u8, Pages);
    }
}

/// <summary>A file by inherited descriptor or by path; exactly one of the two.</summary>
public sealed record FileReference : IJsonRecord
{
    /// <summary>Number of an inherited descriptor.</summary>
    public int? Fd { get; set; }

    /// <summary>Path on the host.</summary>
    public string? Path { get; set; }

    /// <summary>Refers to an inherited descriptor.</summary>
    public static FileReference FromFd(int fd) => new() { Fd = fd };

    /// <summary>Refers to a path.</summary>
    public static FileReference FromPath(string path) => new() { Path = path };

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Fd = members.Number("fd"u8, Fd);
        Path = members.Text("path"u8, Path);
    }
}

/// <summary>Which tables describe the machine to the kernel.</summary>
public enum MachineTables
{
    /// <summary>MP table and ACPI tables; virtio devices by ACPI and on the command line are never both given.</summary>
    Both,

    /// <summary>MP table; virtio devices on the command line. What our own kernel uses.</summary>
    MpTable,

    /// <summary>ACPI: RSDP, XSDT, FADT, MADT and a DSDT with the virtio-mmio devices. What stock kernels use.</summary>
    Acpi,
}

/// <summary>A virtio-vsock device, in the hybrid form: the host's side is Unix sockets.</summary>
public sealed record VsockConfig : IJsonRecord
{
    /// <summary>The guest's context id, 3 or more.</summary>
    public uint Cid { get; set; } = 3;

    /// <summary>
    /// Path of the Unix socket on which the VMM listens: a client sends <c>CONNECT port\n</c> and gets
    /// <c>OK hostport\n</c>. A guest that connects to host port P reaches the listener at <c>path_P</c>.
    /// </summary>
    public required string SocketPath { get; set; }

    /// <summary>A listening socket that stands for the one at <see cref="SocketPath"/>; the VMM makes its own when null.</summary>
    public FileReference? Listener { get; set; }

    string? IJsonRecord.Missing => SocketPath is null ? "socketPath" : null;

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Cid = members.Number("cid"u8, Cid);
        SocketPath = members.NonNullText("socketPath"u8, SocketPath);
        Listener = members.Object("listener"u8, Listener);
    }
}

/// <summary>A virtio-console device with one port.</summary>
public sealed record ConsoleConfig : IJsonRecord
{
    /// <summary>Read for the guest's input; no input when null.</summary>
    public FileReference? Input { get; set; }

    /// <summary>Written with the guest's output.</summary>
    public FileReference? Output { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Input = members.Object("input"u8, Input);
        Output = members.Object("output"u8, Output);
    }
}

/// <summary>A virtio-blk disk.</summary>
public sealed record BlockConfig : IJsonRecord
{
    /// <summary>Image file or block device.</summary>
    public required FileReference File { get; set; }

    /// <summary>Refuse writes, by feature bit and by check.</summary>
    public bool ReadOnly { get; set; }

    /// <summary>Serial number that the guest reads, at most 20 bytes.</summary>
    public string Id { get; set; } = "";

    string? IJsonRecord.Missing => File is null ? "file" : null;

    void IJsonRecord.Members(ref JsonMembers members)
    {
        File = members.Object("file"u8, File)!;
        ReadOnly = members.Flag("readOnly"u8, ReadOnly);
        Id = members.NonNullText("id"u8, Id);
    }
}

/// <summary>A virtio-fs device: a virtual root directory whose entries are the exports.</summary>
public sealed record FsConfig : IJsonRecord
{
    /// <summary>Mount tag, at most 36 bytes.</summary>
    public required string Tag { get; set; }

    /// <summary>Files get no set-user-id and set-group-id bits and no capabilities, whatever the guest asks for.</summary>
    public bool StripSetId { get; set; }

    /// <summary>
    /// Guest physical addresses, in MiB, for files that the guest has mapped shared: an even number up to 256. 0: none, and such
    /// mappings are the guest's own copies.
    /// </summary>
    public int DaxWindowMiB { get; set; }

    /// <summary>The VMM's end of the channel of <see cref="SocketNotice"/>; null: sockets that the guest makes are the guest's alone.</summary>
    public FileReference? Sockets { get; set; }

    /// <summary>Directories and single files, each an entry of the root directory.</summary>
    public IReadOnlyList<FsExport> Exports { get; set; } = [];

    string? IJsonRecord.Missing => Tag is null ? "tag" : null;

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Tag = members.NonNullText("tag"u8, Tag);
        StripSetId = members.Flag("stripSetId"u8, StripSetId);
        DaxWindowMiB = members.Number("daxWindowMiB"u8, DaxWindowMiB);
        Sockets = members.Object("sockets"u8, Sockets);
        Exports = members.Objects("exports"u8, Exports, static () => new FsExport { Name = null!, File = null! });
    }
}

/// <summary>A host directory (or single file) shown in a virtio-fs root directory.</summary>
public sealed record FsExport : IJsonRecord
{
    /// <summary>The entry's name: one path component.</summary>
    public required string Name { get; set; }

    /// <summary>The directory or file. Nothing outside of it can be reached.</summary>
    public required FileReference File { get; set; }

    /// <summary>Answer every change with EROFS, whatever the guest mounted it as.</summary>
    public bool ReadOnly { get; set; }

    /// <summary>The directory is shown without the mounts below it, unlike others that may lead to it.</summary>
    public bool HidesMounts { get; set; }

    /// <summary>The host listens in place of sockets that the guest makes below it.</summary>
    public bool SharesSockets { get; set; }

    /// <summary>How long the guest may believe what it was told of this export.</summary>
    public FsCache Cache { get; set; } = FsCache.Exclusive;

    string? IJsonRecord.Missing => Name is null ? "name" : File is null ? "file" : null;

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Name = members.NonNullText("name"u8, Name);
        File = members.Object("file"u8, File)!;
        ReadOnly = members.Flag("readOnly"u8, ReadOnly);
        HidesMounts = members.Flag("hidesMounts"u8, HidesMounts);
        SharesSockets = members.Flag("sharesSockets"u8, SharesSockets);
        Cache = members.Named("cache"u8, Cache, EnumNames.FsCache);
    }
}

/// <summary>How a guest may cache what it reads from a virtio-fs export.</summary>
public enum FsCache
{
    /// <summary>
    /// Names and attributes for a second, also names that do not exist; file contents and listings until those change: for a
    /// tree that hardly anything but this VM changes. A container's own root file system is one.
    /// </summary>
    Exclusive,

    /// <summary>
    /// Names and attributes for a second; file contents until the next open: for volumes and single files that the host or
    /// other VMs change.
    /// </summary>
    Shared,
}
