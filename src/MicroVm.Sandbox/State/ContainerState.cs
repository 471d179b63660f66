using MicroVm.Json;
using MicroVm.Linux.Native;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.HostCgroups;

namespace MicroVm.Sandbox.State;

/// <summary>state.json of a container: enough for any later command to find its processes and sockets.</summary>
public sealed record ContainerState : IJsonDocument<ContainerState>
{
    /// <summary>The version that this build writes; the first member of the document, and the only one that is read.</summary>
    internal const int CurrentFormat = 1;

    /// <summary>Names of the states.</summary>
    public static readonly NamedValues<ContainerStatus> StatusNames = new(
        (ContainerStatus.Creating, "creating"),
        (ContainerStatus.Created, "created"),
        (ContainerStatus.Running, "running"),
        (ContainerStatus.Paused, "paused"),
        (ContainerStatus.Stopped, "stopped"));

    // Before the status is read.
    private const ContainerStatus NoStatus = (ContainerStatus)(-1);

    /// <summary>Version of this format.</summary>
    public int FormatVersion { get; set; } = CurrentFormat;

    /// <summary>Version of the specification that the bundle asked for.</summary>
    public required string OciVersion { get; set; }

    /// <summary>The first state of a container: nothing but its bundle and its cgroup is there.</summary>
    /// <param name="spec">The bundle's configuration.</param>
    /// <param name="id">The container's id.</param>
    /// <param name="bundle">Absolute path of the bundle.</param>
    /// <param name="rootfs">Absolute path of the root file system.</param>
    /// <param name="init">The host process that stands for the container's init.</param>
    /// <param name="cgroup">Its cgroup on the host.</param>
    internal static ContainerState Creating(Spec spec, string id, string bundle, string rootfs, ProcessIdentity init, HostCgroup cgroup) => new()
    {
        OciVersion = spec.OciVersion!,
        Id = id,
        Bundle = bundle,
        Rootfs = rootfs,
        Created = DateTimeOffset.UtcNow,
        Owner = Libc.getuid(),
        Init = init,
        Status = ContainerStatus.Creating,
        Annotations = spec.Annotations,
        Hooks = spec.Hooks,
        Cgroups = cgroup.Folders,
    };

    /// <summary>The container's id.</summary>
    public required string Id { get; set; }

    /// <summary>Absolute path of the bundle.</summary>
    public required string Bundle { get; set; }

    /// <summary>Absolute path of the root file system.</summary>
    public required string Rootfs { get; set; }

    /// <summary>When it was made.</summary>
    public required DateTimeOffset Created { get; set; }

    /// <summary>User that made it.</summary>
    public required uint Owner { get; set; }

    /// <summary>The host process that stands for the container's init.</summary>
    public required ProcessIdentity Init { get; set; }

    /// <summary>The VMM; null while it is not started.</summary>
    public ProcessIdentity? Vmm { get; set; }

    /// <summary>The process that owns the VM; it may have other containers. Null in states of older versions: <see cref="Init"/> itself.</summary>
    public ProcessIdentity? Sandbox { get; set; }

    /// <summary>Name of the VM's folder (<see cref="ContainerStore.VsockOf(ContainerState)"/>), which all of its containers share.</summary>
    public string? VmFolder { get; set; }

    /// <summary>creating, created, running, paused: what was reached; stopped where the VM goes on without it. A dead <see cref="Init"/> makes it stopped.</summary>
    public required ContainerStatus Status { get; set; }

    /// <summary>Path of the network namespace that was joined; null for one of the container's own.</summary>
    public string? NetworkNamespace { get; set; }

    /// <summary>The bundle's annotations.</summary>
    public SortedDictionary<string, string>? Annotations { get; set; }

    /// <summary>The bundle's hooks: those of the end are run when the bundle may be gone.</summary>
    public Hooks? Hooks { get; set; }

    /// <summary>The container's cgroup on the host: folder by controllers.</summary>
    public SortedDictionary<string, string>? Cgroups { get; set; }

    /// <summary>Memory of the VM, fixed at its creation.</summary>
    public int VmMemoryMiB { get; set; }

    /// <summary>vCPUs of the VM at the container's creation.</summary>
    public int VmVcpus { get; set; }

    /// <summary>Belongs to a command in the foreground: once dead, the id is free.</summary>
    public bool Transient { get; set; }

    string? IJsonRecord.Missing => OciVersion is null ? "ociVersion" : Id is null ? "id" : Bundle is null ? "bundle" : Rootfs is null ? "rootfs" : Init is null ? "init" : Status == NoStatus ? "status" : null;

    /// <inheritdoc/>
    public static ContainerState Empty() => new()
    {
        OciVersion = null!,
        Id = null!,
        Bundle = null!,
        Rootfs = null!,
        Created = default,
        Owner = 0,
        Init = null!,
        Status = NoStatus,
    };

    void IJsonRecord.Members(ref JsonMembers members)
    {
        FormatVersion = Known(members.Number("formatVersion"u8, FormatVersion));
        OciVersion = members.Text("ociVersion"u8, OciVersion)!;
        Id = members.Text("id"u8, Id)!;
        Bundle = members.Text("bundle"u8, Bundle)!;
        Rootfs = members.Text("rootfs"u8, Rootfs)!;
        Created = members.Time("created"u8, Created);
        Owner = members.Number("owner"u8, Owner);
        Init = members.Object("init"u8, Init, ProcessIdentity.Empty)!;
        Vmm = members.Object("vmm"u8, Vmm, ProcessIdentity.Empty);
        Sandbox = members.Object("sandbox"u8, Sandbox, ProcessIdentity.Empty);
        VmFolder = members.Text("vmFolder"u8, VmFolder);
        Status = members.Named("status"u8, Status, StatusNames);
        NetworkNamespace = members.Text("networkNamespace"u8, NetworkNamespace);
        Annotations = members.TextMap("annotations"u8, Annotations);
        Hooks = members.Object("hooks"u8, Hooks);
        Cgroups = members.TextMap("cgroups"u8, Cgroups);
        VmMemoryMiB = members.Number("vmMemoryMiB"u8, VmMemoryMiB);
        VmVcpus = members.Number("vmVcpus"u8, VmVcpus);
        Transient = members.Flag("transient"u8, Transient);
    }

    private static int Known(int version) => version == CurrentFormat ? version : throw new SandboxException(
        $"a container's state has format version {version}, this microvm knows version {CurrentFormat}: use the microvm that created the container");

    /// <summary>The status as facts have it: what was reached, unless a process of the container is gone.</summary>
    public ContainerStatus LiveStatus() =>
        Init.IsAlive() && (Sandbox?.IsAlive() ?? true) && (Vmm?.IsAlive() ?? Status == ContainerStatus.Creating) ? Status : ContainerStatus.Stopped;

    /// <summary>The specification's document, with the live status.</summary>
    public OciState ToOci(ContainerStatus status) => new()
    {
        OciVersion = OciVersion,
        Id = Id,
        Status = status,
        Pid = status == ContainerStatus.Stopped ? 0 : Init.Pid,
        Bundle = Bundle,
        Annotations = Annotations,
    };
}

/// <summary>Status by the runtime specification's names.</summary>
public enum ContainerStatus
{
    /// <summary>The VM is being started.</summary>
    Creating,

    /// <summary>The init waits to exec.</summary>
    Created,

    /// <summary>The process runs.</summary>
    Running,

    /// <summary>Its cgroup is frozen.</summary>
    Paused,

    /// <summary>It has ended.</summary>
    Stopped,
}

/// <summary>The specification's state document (runtime.md, "State"), given to hooks on standard input.</summary>
public sealed record OciState : IJsonRecord
{
#pragma warning disable CS1591 // named and documented by runtime.md
    public required string OciVersion { get; init; }

    public required string Id { get; init; }

    public required ContainerStatus Status { get; init; }

    public required int Pid { get; init; }

    public required string Bundle { get; init; }

    public SortedDictionary<string, string>? Annotations { get; init; }
#pragma warning restore CS1591

    // Written alone.
    void IJsonRecord.Members(ref JsonMembers members)
    {
        _ = members.Text("ociVersion"u8, OciVersion);
        _ = members.Text("id"u8, Id);
        _ = members.Named("status"u8, Status, ContainerState.StatusNames);
        _ = members.Number("pid"u8, Pid);
        _ = members.Text("bundle"u8, Bundle);
        _ = members.TextMap("annotations"u8, Annotations);
    }
}
