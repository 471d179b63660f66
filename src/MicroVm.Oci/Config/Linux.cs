using System.Text.Json;
using MicroVm.Json;

namespace MicroVm.Oci.Config;

#pragma warning disable CS1591 // named and documented by the runtime specification: config-linux.md
/// <summary>config-linux.md: the Linux part of the specification.</summary>
public sealed record Linux : IJsonRecord
{
    public List<IdMapping>? UidMappings { get; set; }

    public List<IdMapping>? GidMappings { get; set; }

    public SortedDictionary<string, string>? Sysctl { get; set; }

    public Resources? Resources { get; set; }

    public string? CgroupsPath { get; set; }

    public List<Namespace>? Namespaces { get; set; }

    public List<Device>? Devices { get; set; }

    public SortedDictionary<string, JsonElement>? NetDevices { get; set; }

    public Seccomp? Seccomp { get; set; }

    public string? RootfsPropagation { get; set; }

    public List<string>? MaskedPaths { get; set; }

    public List<string>? ReadonlyPaths { get; set; }

    public string? MountLabel { get; set; }

    public JsonElement? IntelRdt { get; set; }

    public JsonElement? MemoryPolicy { get; set; }

    public Personality? Personality { get; set; }

    public SortedDictionary<string, TimeOffset>? TimeOffsets { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        UidMappings = members.Objects("uidMappings"u8, UidMappings);
        GidMappings = members.Objects("gidMappings"u8, GidMappings);
        Sysctl = members.TextMap("sysctl"u8, Sysctl);
        Resources = members.Object("resources"u8, Resources);
        CgroupsPath = members.Text("cgroupsPath"u8, CgroupsPath);
        Namespaces = members.Objects("namespaces"u8, Namespaces);
        Devices = members.Objects("devices"u8, Devices);
        NetDevices = members.ElementMap("netDevices"u8, NetDevices);
        Seccomp = members.Object("seccomp"u8, Seccomp);
        RootfsPropagation = members.Text("rootfsPropagation"u8, RootfsPropagation);
        MaskedPaths = members.Texts("maskedPaths"u8, MaskedPaths);
        ReadonlyPaths = members.Texts("readonlyPaths"u8, ReadonlyPaths);
        MountLabel = members.Text("mountLabel"u8, MountLabel);
        IntelRdt = members.Element("intelRdt"u8, IntelRdt);
        MemoryPolicy = members.Element("memoryPolicy"u8, MemoryPolicy);
        Personality = members.Object("personality"u8, Personality);
        TimeOffsets = members.ObjectMap("timeOffsets"u8, TimeOffsets);
    }
}

/// <summary>config-linux.md, "Namespaces".</summary>
public sealed record Namespace : IJsonRecord
{
    public string? Type { get; set; }

    public string? Path { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Type = members.Text("type"u8, Type);
        Path = members.Text("path"u8, Path);
    }
}

/// <summary>config-linux.md, "Devices".</summary>
public sealed record Device : IJsonRecord
{
    public string? Path { get; set; }

    public string? Type { get; set; }

    public long? Major { get; set; }

    public long? Minor { get; set; }

    public uint? FileMode { get; set; }

    public uint? Uid { get; set; }

    public uint? Gid { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Path = members.Text("path"u8, Path);
        Type = members.Text("type"u8, Type);
        Major = members.Number("major"u8, Major);
        Minor = members.Number("minor"u8, Minor);
        FileMode = members.Number("fileMode"u8, FileMode);
        Uid = members.Number("uid"u8, Uid);
        Gid = members.Number("gid"u8, Gid);
    }
}

/// <summary>config-linux.md, "Personality".</summary>
public sealed record Personality : IJsonRecord
{
    public string? Domain { get; set; }

    public List<string>? Flags { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Domain = members.Text("domain"u8, Domain);
        Flags = members.Texts("flags"u8, Flags);
    }
}

/// <summary>config-linux.md, "Offset for Time Namespace".</summary>
public sealed record TimeOffset : IJsonRecord
{
    public long? Secs { get; set; }

    public uint? Nanosecs { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Secs = members.Number("secs"u8, Secs);
        Nanosecs = members.Number("nanosecs"u8, Nanosecs);
    }
}

/// <summary>config-linux.md, "Seccomp".</summary>
public sealed record Seccomp : IJsonRecord
{
    public string? DefaultAction { get; set; }

    public uint? DefaultErrnoRet { get; set; }

    public List<string>? Architectures { get; set; }

    public List<string>? Flags { get; set; }

    public string? ListenerPath { get; set; }

    public string? ListenerMetadata { get; set; }

    public List<SeccompSyscall>? Syscalls { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        DefaultAction = members.Text("defaultAction"u8, DefaultAction);
        DefaultErrnoRet = members.Number("defaultErrnoRet"u8, DefaultErrnoRet);
        Architectures = members.Texts("architectures"u8, Architectures);
        Flags = members.Texts("flags"u8, Flags);
        ListenerPath = members.Text("listenerPath"u8, ListenerPath);
        ListenerMetadata = members.Text("listenerMetadata"u8, ListenerMetadata);
        Syscalls = members.Objects("syscalls"u8, Syscalls);
    }
}

/// <summary>One rule of a seccomp profile.</summary>
public sealed record SeccompSyscall : IJsonRecord
{
    public List<string>? Names { get; set; }

    public string? Action { get; set; }

    public uint? ErrnoRet { get; set; }

    public List<SeccompArg>? Args { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Names = members.Texts("names"u8, Names);
        Action = members.Text("action"u8, Action);
        ErrnoRet = members.Number("errnoRet"u8, ErrnoRet);
        Args = members.Objects("args"u8, Args);
    }
}

/// <summary>One comparison of a system call's argument.</summary>
public sealed record SeccompArg : IJsonRecord
{
    public uint? Index { get; set; }

    public ulong? Value { get; set; }

    public ulong? ValueTwo { get; set; }

    public string? Op { get; set; }

    void IJsonRecord.Members(ref JsonMembers members)
    {
        Index = members.Number("index"u8, Index);
        Value = members.Number("value"u8, Value);
        ValueTwo = members.Number("valueTwo"u8, ValueTwo);
        Op = members.Text("op"u8, Op);
    }
}
