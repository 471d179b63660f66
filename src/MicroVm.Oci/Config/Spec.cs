using MicroVm.Json;

namespace MicroVm.Oci.Config;

#pragma warning disable CS1591 // named and documented by the runtime specification: config.md
/// <summary>A bundle's <c>config.json</c>: the OCI runtime specification, version 1.x. Absent and null are the same.</summary>
public sealed record Spec : IJsonRecord
{
    public string? OciVersion { get; set; }

    public Process? Process { get; set; }

    public Root? Root { get; set; }

    public string? Hostname { get; set; }

    public string? Domainname { get; set; }

    public List<Mount>? Mounts { get; set; }

    public Hooks? Hooks { get; set; }

    public SortedDictionary<string, string>? Annotations { get; set; }

    public Linux? Linux { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        OciVersion = members.Text("ociVersion"u8, OciVersion);
        Process = members.Object("process"u8, Process);
        Root = members.Object("root"u8, Root);
        Hostname = members.Text("hostname"u8, Hostname);
        Domainname = members.Text("domainname"u8, Domainname);
        Mounts = members.Objects("mounts"u8, Mounts);
        Hooks = members.Object("hooks"u8, Hooks);
        Annotations = members.TextMap("annotations"u8, Annotations);
        Linux = members.Object("linux"u8, Linux);
    }
}

/// <summary>config.md, "Root".</summary>
public sealed record Root : IJsonRecord
{
    public string? Path { get; set; }

    public bool? Readonly { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Path = members.Text("path"u8, Path);
        Readonly = members.Flag("readonly"u8, Readonly);
    }
}

/// <summary>config.md, "Mounts".</summary>
public sealed record Mount : IJsonRecord
{
    public string? Destination { get; set; }

    public string? Type { get; set; }

    public string? Source { get; set; }

    public List<string>? Options { get; set; }

    public List<IdMapping>? UidMappings { get; set; }

    public List<IdMapping>? GidMappings { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Destination = members.Text("destination"u8, Destination);
        Type = members.Text("type"u8, Type);
        Source = members.Text("source"u8, Source);
        Options = members.Texts("options"u8, Options);
        UidMappings = members.Objects("uidMappings"u8, UidMappings);
        GidMappings = members.Objects("gidMappings"u8, GidMappings);
    }
}

/// <summary>config.md, "POSIX-platform Hooks".</summary>
public sealed record Hooks : IJsonRecord
{
    public List<Hook>? Prestart { get; set; }

    public List<Hook>? CreateRuntime { get; set; }

    public List<Hook>? CreateContainer { get; set; }

    public List<Hook>? StartContainer { get; set; }

    public List<Hook>? Poststart { get; set; }

    public List<Hook>? Poststop { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Prestart = members.Objects("prestart"u8, Prestart);
        CreateRuntime = members.Objects("createRuntime"u8, CreateRuntime);
        CreateContainer = members.Objects("createContainer"u8, CreateContainer);
        StartContainer = members.Objects("startContainer"u8, StartContainer);
        Poststart = members.Objects("poststart"u8, Poststart);
        Poststop = members.Objects("poststop"u8, Poststop);
    }
}

/// <summary>A program run at a point of the container's life. <see cref="Timeout"/> is in seconds.</summary>
public sealed record Hook : IJsonRecord
{
    public string? Path { get; set; }

    public List<string>? Args { get; set; }

    public List<string>? Env { get; set; }

    public int? Timeout { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Path = members.Text("path"u8, Path);
        Args = members.Texts("args"u8, Args);
        Env = members.Texts("env"u8, Env);
        Timeout = members.Number("timeout"u8, Timeout);
    }
}

/// <summary>config-linux.md, "User namespace mappings".</summary>
public sealed record IdMapping : IJsonRecord
{
    public uint? ContainerID { get; set; }

    public uint? HostID { get; set; }

    public uint? Size { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        ContainerID = members.Number("containerID"u8, ContainerID);
        HostID = members.Number("hostID"u8, HostID);
        Size = members.Number("size"u8, Size);
    }
}
