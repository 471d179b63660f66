using System.Text.Json;

namespace MicroVm.Oci.Config;

#pragma warning disable CS1591 // named and documented by the runtime specification: config-linux.md
/// <summary>config-linux.md: the Linux part of the specification.</summary>
public sealed record Linux
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
}

/// <summary>config-linux.md, "Namespaces".</summary>
public sealed record Namespace
{
    public string? Type { get; set; }

    public string? Path { get; set; }
}

/// <summary>config-linux.md, "Devices".</summary>
public sealed record Device
{
    public string? Path { get; set; }

    public string? Type { get; set; }

    public long? Major { get; set; }

    public long? Minor { get; set; }

    public uint? FileMode { get; set; }

    public uint? Uid { get; set; }

    public uint? Gid { get; set; }
}

/// <summary>config-linux.md, "Personality".</summary>
public sealed record Personality
{
    public string? Domain { get; set; }

    public List<string>? Flags { get; set; }
}

/// <summary>config-linux.md, "Offset for Time Namespace".</summary>
public sealed record TimeOffset
{
    public long? Secs { get; set; }

    public uint? Nanosecs { get; set; }
}

/// <summary>config-linux.md, "Seccomp".</summary>
public sealed record Seccomp
{
    public string? DefaultAction { get; set; }

    public uint? DefaultErrnoRet { get; set; }

    public List<string>? Architectures { get; set; }

    public List<string>? Flags { get; set; }

    public string? ListenerPath { get; set; }

    public string? ListenerMetadata { get; set; }

    public List<SeccompSyscall>? Syscalls { get; set; }
}

/// <summary>One rule of a seccomp profile.</summary>
public sealed record SeccompSyscall
{
    public List<string>? Names { get; set; }

    public string? Action { get; set; }

    public uint? ErrnoRet { get; set; }

    public List<SeccompArg>? Args { get; set; }
}

/// <summary>One comparison of a system call's argument.</summary>
public sealed record SeccompArg
{
    public uint? Index { get; set; }

    public ulong? Value { get; set; }

    public ulong? ValueTwo { get; set; }

    public string? Op { get; set; }
}
