using MicroVm.Json;

namespace MicroVm.Oci.Config.Reading;

/// <summary>The members that config-linux.md defines, and where they go.</summary>
internal static class LinuxMembers
{
    internal static readonly Members<Namespace> Namespace = Members.Of<Namespace>(
        ("type", static (v, ref json) => v.Type = json.Text()),
        ("path", static (v, ref json) => v.Path = json.Text()));

    internal static readonly Members<Device> Device = Members.Of<Device>(
        ("path", static (v, ref json) => v.Path = json.Text()),
        ("type", static (v, ref json) => v.Type = json.Text()),
        ("major", static (v, ref json) => v.Major = json.Int64()),
        ("minor", static (v, ref json) => v.Minor = json.Int64()),
        ("fileMode", static (v, ref json) => v.FileMode = json.UInt32()),
        ("uid", static (v, ref json) => v.Uid = json.UInt32()),
        ("gid", static (v, ref json) => v.Gid = json.UInt32()));

    internal static readonly Members<SeccompArg> SeccompArg = Members.Of<SeccompArg>(
        ("index", static (v, ref json) => v.Index = json.UInt32()),
        ("value", static (v, ref json) => v.Value = json.UInt64()),
        ("valueTwo", static (v, ref json) => v.ValueTwo = json.UInt64()),
        ("op", static (v, ref json) => v.Op = json.Text()));

    internal static readonly Members<SeccompSyscall> SeccompSyscall = Members.Of<SeccompSyscall>(
        ("names", static (v, ref json) => v.Names = json.Texts()),
        ("action", static (v, ref json) => v.Action = json.Text()),
        ("errnoRet", static (v, ref json) => v.ErrnoRet = json.UInt32()),
        ("args", static (v, ref json) => v.Args = json.List(SeccompArg)));

    internal static readonly Members<Seccomp> Seccomp = Members.Of<Seccomp>(
        ("defaultAction", static (v, ref json) => v.DefaultAction = json.Text()),
        ("defaultErrnoRet", static (v, ref json) => v.DefaultErrnoRet = json.UInt32()),
        ("architectures", static (v, ref json) => v.Architectures = json.Texts()),
        ("flags", static (v, ref json) => v.Flags = json.Texts()),
        ("listenerPath", static (v, ref json) => v.ListenerPath = json.Text()),
        ("listenerMetadata", static (v, ref json) => v.ListenerMetadata = json.Text()),
        ("syscalls", static (v, ref json) => v.Syscalls = json.List(SeccompSyscall)));

    internal static readonly Members<Personality> Personality = Members.Of<Personality>(
        ("domain", static (v, ref json) => v.Domain = json.Text()),
        ("flags", static (v, ref json) => v.Flags = json.Texts()));

    internal static readonly Members<TimeOffset> TimeOffset = Members.Of<TimeOffset>(
        ("secs", static (v, ref json) => v.Secs = json.Int64()),
        ("nanosecs", static (v, ref json) => v.Nanosecs = json.UInt32()));

    internal static readonly Members<Linux> Linux = Members.Of<Linux>(
        ("uidMappings", static (v, ref json) => v.UidMappings = json.List(SpecMembers.IdMapping)),
        ("gidMappings", static (v, ref json) => v.GidMappings = json.List(SpecMembers.IdMapping)),
        ("sysctl", static (v, ref json) => v.Sysctl = json.TextMap()),
        ("resources", static (v, ref json) => v.Resources = json.Object(ResourcesMembers.Resources)),
        ("cgroupsPath", static (v, ref json) => v.CgroupsPath = json.Text()),
        ("namespaces", static (v, ref json) => v.Namespaces = json.List(Namespace)),
        ("devices", static (v, ref json) => v.Devices = json.List(Device)),
        ("netDevices", static (v, ref json) => v.NetDevices = json.ElementMap()),
        ("seccomp", static (v, ref json) => v.Seccomp = json.Object(Seccomp)),
        ("rootfsPropagation", static (v, ref json) => v.RootfsPropagation = json.Text()),
        ("maskedPaths", static (v, ref json) => v.MaskedPaths = json.Texts()),
        ("readonlyPaths", static (v, ref json) => v.ReadonlyPaths = json.Texts()),
        ("mountLabel", static (v, ref json) => v.MountLabel = json.Text()),
        ("intelRdt", static (v, ref json) => v.IntelRdt = json.Element()),
        ("memoryPolicy", static (v, ref json) => v.MemoryPolicy = json.Element()),
        ("personality", static (v, ref json) => v.Personality = json.Object(Personality)),
        ("timeOffsets", static (v, ref json) => v.TimeOffsets = json.Map(TimeOffset)));
}
