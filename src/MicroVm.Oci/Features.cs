using System.Text.Json.Serialization;
using MicroVm.Oci.Mounts;
using MicroVm.Oci.Processes;
using MicroVm.Oci.Seccomp;

namespace MicroVm.Oci;

#pragma warning disable CS1591 // named and documented by the runtime specification: features.md, features-linux.md
/// <summary>features.md: what the runtime can do, for callers to ask.</summary>
public sealed record Features
{
    public string OciVersionMin { get; } = "1.0.0";

    public string OciVersionMax { get; } = "1.2.1";

    public IReadOnlyList<string> Hooks { get; } = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

    public IReadOnlyList<string> MountOptions { get; } = Mounts.MountOptions.KnownWords;

    public LinuxFeatures Linux { get; } = new();

    public required SortedDictionary<string, string> Annotations { get; init; }

    public IReadOnlyList<string> PotentiallyUnsafeConfigAnnotations { get; init; } = [];
}

/// <summary>features-linux.md.</summary>
public sealed record LinuxFeatures
{
    public IReadOnlyList<string> Namespaces { get; } = NamespaceTypes.All;

    public IReadOnlyList<string> Capabilities { get; } = CapabilitySets.Names;

    public CgroupFeatures Cgroup { get; } = new();

    public SeccompFeatures Seccomp { get; } = new();

    public EnabledFeature Apparmor { get; } = new(false);

    public EnabledFeature Selinux { get; } = new(false);

    public EnabledFeature IntelRdt { get; } = new(false);

    public MountExtensionFeatures MountExtensions { get; } = new();
}

/// <summary>Control groups: the guest's are version 2, the host's may be either.</summary>
public sealed record CgroupFeatures
{
    public bool V1 { get; } = true;

    public bool V2 { get; } = true;

    public bool Systemd { get; }

    public bool SystemdUser { get; }

    public bool Rdma { get; }
}

/// <summary>Seccomp.</summary>
public sealed record SeccompFeatures
{
    public bool Enabled { get; } = true;

    public IReadOnlyList<string> Actions { get; } = SeccompResolver.Actions;

    public IReadOnlyList<string> Operators { get; } = SeccompResolver.Operators;

    public IReadOnlyList<string> Archs { get; } = SeccompResolver.NativeArchitectures;

    public IReadOnlyList<string> KnownFlags { get; } = SeccompResolver.KnownFlags;

    public IReadOnlyList<string> SupportedFlags { get; } = SeccompResolver.KnownFlags;
}

/// <summary>A feature that is there or not.</summary>
public sealed record EnabledFeature(bool Enabled);

/// <summary>Mount extensions.</summary>
public sealed record MountExtensionFeatures
{
    public EnabledFeature Idmap { get; } = new(false);
}
#pragma warning restore CS1591

/// <summary>Source-generated JSON of <see cref="Features"/>.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, WriteIndented = true, IndentSize = 4)]
[JsonSerializable(typeof(Features))]
public sealed partial class FeaturesJson : JsonSerializerContext;
