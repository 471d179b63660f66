namespace MicroVm.Oci.Config;

#pragma warning disable CS1591 // named and documented by the runtime specification: config.md
/// <summary>A bundle's <c>config.json</c>: the OCI runtime specification, version 1.x. Absent and null are the same.</summary>
public sealed record Spec
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
}

/// <summary>config.md, "Root".</summary>
public sealed record Root
{
    public string? Path { get; set; }

    public bool? Readonly { get; set; }
}

/// <summary>config.md, "Mounts".</summary>
public sealed record Mount
{
    public string? Destination { get; set; }

    public string? Type { get; set; }

    public string? Source { get; set; }

    public List<string>? Options { get; set; }

    public List<IdMapping>? UidMappings { get; set; }

    public List<IdMapping>? GidMappings { get; set; }
}

/// <summary>config.md, "POSIX-platform Hooks".</summary>
public sealed record Hooks
{
    public List<Hook>? Prestart { get; set; }

    public List<Hook>? CreateRuntime { get; set; }

    public List<Hook>? CreateContainer { get; set; }

    public List<Hook>? StartContainer { get; set; }

    public List<Hook>? Poststart { get; set; }

    public List<Hook>? Poststop { get; set; }
}

/// <summary>A program run at a point of the container's life. <see cref="Timeout"/> is in seconds.</summary>
public sealed record Hook
{
    public string? Path { get; set; }

    public List<string>? Args { get; set; }

    public List<string>? Env { get; set; }

    public int? Timeout { get; set; }
}

/// <summary>config-linux.md, "User namespace mappings".</summary>
public sealed record IdMapping
{
    public uint? ContainerID { get; set; }

    public uint? HostID { get; set; }

    public uint? Size { get; set; }
}
