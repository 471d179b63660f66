using MicroVm.Json;
using MicroVm.Oci.Mounts;
using MicroVm.Oci.Processes;
using MicroVm.Oci.Seccomp;

namespace MicroVm.Oci;

#pragma warning disable CS1591 // named and documented by the runtime specification: features.md, features-linux.md
/// <summary>features.md: what the runtime can do, for callers to ask.</summary>
public sealed record Features : IJsonRecord
{
    public string OciVersionMin { get; } = "1.0.0";

    public string OciVersionMax { get; } = "1.2.1";

    public IReadOnlyList<string> Hooks { get; } = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

    public IReadOnlyList<string> MountOptions { get; } = Mounts.MountOptions.KnownWords;

    public LinuxFeatures Linux { get; } = new();

    public required SortedDictionary<string, string> Annotations { get; init; }

    public IReadOnlyList<string> PotentiallyUnsafeConfigAnnotations { get; init; } = [];

    void IJsonRecord.Members(ref JsonMembers members)
    {
        _ = members.Text("ociVersionMin"u8, OciVersionMin);
        _ = members.Text("ociVersionMax"u8, OciVersionMax);
        _ = members.Texts("hooks"u8, [.. Hooks]);
        _ = members.Texts("mountOptions"u8, [.. MountOptions]);
        _ = members.Object("linux"u8, Linux);
        _ = members.TextMap("annotations"u8, Annotations);
        _ = members.Texts("potentiallyUnsafeConfigAnnotations"u8, [.. PotentiallyUnsafeConfigAnnotations]);
    }
}

/// <summary>features-linux.md.</summary>
public sealed record LinuxFeatures : IJsonRecord
{
    public IReadOnlyList<string> Namespaces { get; } = NamespaceTypes.All;

    public IReadOnlyList<string> Capabilities { get; } = CapabilitySets.Names;

    public CgroupFeatures Cgroup { get; } = new();

    public SeccompFeatures Seccomp { get; } = new();

    public EnabledFeature Apparmor { get; } = new();

    public EnabledFeature Selinux { get; } = new();

    public EnabledFeature IntelRdt { get; } = new();

    public MountExtensionFeatures MountExtensions { get; } = new();

    void IJsonRecord.Members(ref JsonMembers members)
    {
        _ = members.Texts("namespaces"u8, [.. Namespaces]);
        _ = members.Texts("capabilities"u8, [.. Capabilities]);
        _ = members.Object("cgroup"u8, Cgroup);
        _ = members.Object("seccomp"u8, Seccomp);
        _ = members.Object("apparmor"u8, Apparmor);
        _ = members.Object("selinux"u8, Selinux);
        _ = members.Object("intelRdt"u8, IntelRdt);
        _ = members.Object("mountExtensions"u8, MountExtensions);
    }
}

/// <summary>Control groups: the guest's are version 2, the host's may be either.</summary>
public sealed record CgroupFeatures : IJsonRecord
{
    public bool V1 { get; } = true;

    public bool V2 { get; } = true;

    public bool Systemd { get; }

    public bool SystemdUser { get; }

    public bool Rdma { get; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        _ = members.Flag("v1"u8, V1);
        _ = members.Flag("v2"u8, V2);
        _ = members.Flag("systemd"u8, Systemd);
        _ = members.Flag("systemdUser"u8, SystemdUser);
        _ = members.Flag("rdma"u8, Rdma);
    }
}

/// <summary>Seccomp.</summary>
public sealed record SeccompFeatures : IJsonRecord
{
    public bool Enabled { get; } = true;

    public IReadOnlyList<string> Actions { get; } = SeccompResolver.Actions;

    public IReadOnlyList<string> Operators { get; } = SeccompResolver.Operators;

    public IReadOnlyList<string> Archs { get; } = SeccompResolver.NativeArchitectures;

    public IReadOnlyList<string> KnownFlags { get; } = SeccompResolver.KnownFlags;

    public IReadOnlyList<string> SupportedFlags { get; } = SeccompResolver.KnownFlags;

    void IJsonRecord.Members(ref JsonMembers members)
    {
        _ = members.Flag("enabled"u8, Enabled);
        _ = members.Texts("actions"u8, [.. Actions]);
        _ = members.Texts("operators"u8, [.. Operators]);
        _ = members.Texts("archs"u8, [.. Archs]);
        _ = members.Texts("knownFlags"u8, [.. KnownFlags]);
        _ = members.Texts("supportedFlags"u8, [.. SupportedFlags]);
    }
}

/// <summary>A feature that is there or not.</summary>
public sealed record EnabledFeature : IJsonRecord
{
    public bool Enabled { get; set; }

    void IJsonRecord.Members(ref JsonMembers members) => Enabled = members.Flag("enabled"u8, Enabled);
}

/// <summary>Mount extensions.</summary>
public sealed record MountExtensionFeatures : IJsonRecord
{
    public EnabledFeature Idmap { get; } = new();

    void IJsonRecord.Members(ref JsonMembers members)
    {
        _ = members.Object("idmap"u8, Idmap);
    }
}
#pragma warning restore CS1591
