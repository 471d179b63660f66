namespace MicroVm.Oci.Config;

#pragma warning disable CS1591 // named and documented by the runtime specification: config.md, "Process"
/// <summary>config.md, "Process"; also the content of <c>exec --process FILE</c>.</summary>
public sealed record Process
{
    public bool? Terminal { get; set; }

    public ConsoleSize? ConsoleSize { get; set; }

    public User? User { get; set; }

    public List<string>? Args { get; set; }

    public List<string>? Env { get; set; }

    public string? Cwd { get; set; }

    public CapabilityNames? Capabilities { get; set; }

    public List<Rlimit>? Rlimits { get; set; }

    public bool? NoNewPrivileges { get; set; }

    public string? ApparmorProfile { get; set; }

    public int? OomScoreAdj { get; set; }

    public Scheduler? Scheduler { get; set; }

    public string? SelinuxLabel { get; set; }

    public IoPriority? IoPriority { get; set; }

    public ExecCpuAffinity? ExecCPUAffinity { get; set; }
}

/// <summary>Terminal size in characters.</summary>
public sealed record ConsoleSize
{
    public uint? Height { get; set; }

    public uint? Width { get; set; }
}

/// <summary>config.md, "User".</summary>
public sealed record User
{
    public uint? Uid { get; set; }

    public uint? Gid { get; set; }

    public uint? Umask { get; set; }

    public List<uint>? AdditionalGids { get; set; }
}

/// <summary>config.md, "Linux Process": the five capability sets, by name.</summary>
public sealed record CapabilityNames
{
    public List<string>? Bounding { get; set; }

    public List<string>? Effective { get; set; }

    public List<string>? Inheritable { get; set; }

    public List<string>? Permitted { get; set; }

    public List<string>? Ambient { get; set; }
}

/// <summary>config.md, "POSIX process": one resource limit.</summary>
public sealed record Rlimit
{
    public string? Type { get; set; }

    public ulong? Hard { get; set; }

    public ulong? Soft { get; set; }
}

/// <summary>config.md, "Linux Process": scheduler.</summary>
public sealed record Scheduler
{
    public string? Policy { get; set; }

    public int? Nice { get; set; }

    public int? Priority { get; set; }

    public List<string>? Flags { get; set; }

    public ulong? Runtime { get; set; }

    public ulong? Deadline { get; set; }

    public ulong? Period { get; set; }
}

/// <summary>config.md, "Linux Process": I/O priority.</summary>
public sealed record IoPriority
{
    public string? Class { get; set; }

    public int? Priority { get; set; }
}

/// <summary>config.md, "Linux Process": CPU affinity of an exec.</summary>
public sealed record ExecCpuAffinity
{
    public string? Initial { get; set; }

    public string? Final { get; set; }
}
