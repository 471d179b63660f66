using MicroVm.Json;

namespace MicroVm.Oci.Config;

#pragma warning disable CS1591 // named and documented by the runtime specification: config.md, "Process"
/// <summary>config.md, "Process"; also the content of <c>exec --process FILE</c>.</summary>
public sealed record Process : IJsonRecord
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

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Terminal = members.Flag("terminal"u8, Terminal);
        ConsoleSize = members.Object("consoleSize"u8, ConsoleSize);
        User = members.Object("user"u8, User);
        Args = members.Texts("args"u8, Args);
        Env = members.Texts("env"u8, Env);
        Cwd = members.Text("cwd"u8, Cwd);
        Capabilities = members.Object("capabilities"u8, Capabilities);
        Rlimits = members.Objects("rlimits"u8, Rlimits);
        NoNewPrivileges = members.Flag("noNewPrivileges"u8, NoNewPrivileges);
        ApparmorProfile = members.Text("apparmorProfile"u8, ApparmorProfile);
        OomScoreAdj = members.Number("oomScoreAdj"u8, OomScoreAdj);
        Scheduler = members.Object("scheduler"u8, Scheduler);
        SelinuxLabel = members.Text("selinuxLabel"u8, SelinuxLabel);
        IoPriority = members.Object("ioPriority"u8, IoPriority);
        ExecCPUAffinity = members.Object("execCPUAffinity"u8, ExecCPUAffinity);
    }
}

/// <summary>Terminal size in characters.</summary>
public sealed record ConsoleSize : IJsonRecord
{
    public uint? Height { get; set; }

    public uint? Width { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Height = members.Number("height"u8, Height);
        Width = members.Number("width"u8, Width);
    }
}

/// <summary>config.md, "User".</summary>
public sealed record User : IJsonRecord
{
    public uint? Uid { get; set; }

    public uint? Gid { get; set; }

    public uint? Umask { get; set; }

    public List<uint>? AdditionalGids { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Uid = members.Number("uid"u8, Uid);
        Gid = members.Number("gid"u8, Gid);
        Umask = members.Number("umask"u8, Umask);
        AdditionalGids = members.Numbers("additionalGids"u8, AdditionalGids);
    }
}

/// <summary>config.md, "Linux Process": the five capability sets, by name.</summary>
public sealed record CapabilityNames : IJsonRecord
{
    public List<string>? Bounding { get; set; }

    public List<string>? Effective { get; set; }

    public List<string>? Inheritable { get; set; }

    public List<string>? Permitted { get; set; }

    public List<string>? Ambient { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Bounding = members.Texts("bounding"u8, Bounding);
        Effective = members.Texts("effective"u8, Effective);
        Inheritable = members.Texts("inheritable"u8, Inheritable);
        Permitted = members.Texts("permitted"u8, Permitted);
        Ambient = members.Texts("ambient"u8, Ambient);
    }
}

/// <summary>config.md, "POSIX process": one resource limit.</summary>
public sealed record Rlimit : IJsonRecord
{
    public string? Type { get; set; }

    public ulong? Hard { get; set; }

    public ulong? Soft { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Type = members.Text("type"u8, Type);
        Hard = members.Number("hard"u8, Hard);
        Soft = members.Number("soft"u8, Soft);
    }
}

/// <summary>config.md, "Linux Process": scheduler.</summary>
public sealed record Scheduler : IJsonRecord
{
    public string? Policy { get; set; }

    public int? Nice { get; set; }

    public int? Priority { get; set; }

    public List<string>? Flags { get; set; }

    public ulong? Runtime { get; set; }

    public ulong? Deadline { get; set; }

    public ulong? Period { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Policy = members.Text("policy"u8, Policy);
        Nice = members.Number("nice"u8, Nice);
        Priority = members.Number("priority"u8, Priority);
        Flags = members.Texts("flags"u8, Flags);
        Runtime = members.Number("runtime"u8, Runtime);
        Deadline = members.Number("deadline"u8, Deadline);
        Period = members.Number("period"u8, Period);
    }
}

/// <summary>config.md, "Linux Process": I/O priority.</summary>
public sealed record IoPriority : IJsonRecord
{
    public string? Class { get; set; }

    public int? Priority { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Class = members.Text("class"u8, Class);
        Priority = members.Number("priority"u8, Priority);
    }
}

/// <summary>config.md, "Linux Process": CPU affinity of an exec.</summary>
public sealed record ExecCpuAffinity : IJsonRecord
{
    public string? Initial { get; set; }

    public string? Final { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Initial = members.Text("initial"u8, Initial);
        Final = members.Text("final"u8, Final);
    }
}
