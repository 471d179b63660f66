using System.Text.Json.Serialization;
using MicroVm.Linux.Native;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.HostCgroups;

namespace MicroVm.Sandbox.State;

/// <summary>state.json of a container: enough for any later command to find its processes and sockets.</summary>
public sealed partial record ContainerState : IHandJson<ContainerState>
{
    /// <summary>The version that this build writes; the first member of the document, and the only one that is read.</summary>
    internal const int CurrentFormat = 1;

    /// <summary>Version of this format.</summary>
    public int FormatVersion { get; init; } = CurrentFormat;

    /// <summary>Version of the specification that the bundle asked for.</summary>
    public required string OciVersion { get; init; }

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
    public required string Id { get; init; }

    /// <summary>Absolute path of the bundle.</summary>
    public required string Bundle { get; init; }

    /// <summary>Absolute path of the root file system.</summary>
    public required string Rootfs { get; init; }

    /// <summary>When it was made.</summary>
    public required DateTimeOffset Created { get; init; }

    /// <summary>User that made it.</summary>
    public required uint Owner { get; init; }

    /// <summary>The host process that stands for the container's init.</summary>
    public required ProcessIdentity Init { get; init; }

    /// <summary>The VMM; null while it is not started.</summary>
    public ProcessIdentity? Vmm { get; init; }

    /// <summary>The process that owns the VM; it may have other containers. Null in states of older versions: <see cref="Init"/> itself.</summary>
    public ProcessIdentity? Sandbox { get; init; }

    /// <summary>Name of the VM's folder (<see cref="ContainerStore.VsockOf(ContainerState)"/>), which all of its containers share.</summary>
    public string? VmFolder { get; init; }

    /// <summary>creating, created, running, paused: what was reached; stopped where the VM goes on without it. A dead <see cref="Init"/> makes it stopped.</summary>
    public required ContainerStatus Status { get; init; }

    /// <summary>Path of the network namespace that was joined; null for one of the container's own.</summary>
    public string? NetworkNamespace { get; init; }

    /// <summary>The bundle's annotations.</summary>
    public SortedDictionary<string, string>? Annotations { get; init; }

    /// <summary>The bundle's hooks: those of the end are run when the bundle may be gone.</summary>
    public Hooks? Hooks { get; init; }

    /// <summary>The container's cgroup on the host: folder by controllers.</summary>
    public SortedDictionary<string, string>? Cgroups { get; init; }

    /// <summary>Memory of the VM, fixed at its creation.</summary>
    public int VmMemoryMiB { get; init; }

    /// <summary>Belongs to a command in the foreground: once dead, the id is free.</summary>
    public bool Transient { get; init; }

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
[JsonConverter(typeof(JsonStringEnumConverter<ContainerStatus>))]
public enum ContainerStatus
{
    /// <summary>The VM is being started.</summary>
    [JsonStringEnumMemberName("creating")]
    Creating,

    /// <summary>The init waits to exec.</summary>
    [JsonStringEnumMemberName("created")]
    Created,

    /// <summary>The process runs.</summary>
    [JsonStringEnumMemberName("running")]
    Running,

    /// <summary>Its cgroup is frozen.</summary>
    [JsonStringEnumMemberName("paused")]
    Paused,

    /// <summary>It has ended.</summary>
    [JsonStringEnumMemberName("stopped")]
    Stopped,
}

/// <summary>The specification's state document (runtime.md, "State"), given to hooks on standard input.</summary>
public sealed record OciState
{
#pragma warning disable CS1591 // named and documented by runtime.md
    public required string OciVersion { get; init; }

    public required string Id { get; init; }

    public required ContainerStatus Status { get; init; }

    public required int Pid { get; init; }

    public required string Bundle { get; init; }

    public SortedDictionary<string, string>? Annotations { get; init; }
#pragma warning restore CS1591
}

/// <summary>Source-generated JSON of the specification's state and of hooks.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull)]
[JsonSerializable(typeof(Hooks))]
[JsonSerializable(typeof(OciState))]
public sealed partial class StateJson : JsonSerializerContext;
