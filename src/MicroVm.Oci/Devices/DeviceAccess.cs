namespace MicroVm.Oci.Devices;

/// <summary>BPF_DEVCG_ACC_* of linux/bpf.h.</summary>
[Flags]
public enum DeviceAccess
{
#pragma warning disable CS1591
    None = 0,
    MakeNode = 1,
    Read = 2,
    Write = 4,
    All = 7,
#pragma warning restore CS1591
}

/// <summary>BPF_DEVCG_DEV_* of linux/bpf.h.</summary>
public enum DeviceType
{
    /// <summary>Both kinds; only in rules.</summary>
    Any = 0,

    /// <summary>Block device.</summary>
    Block = 1,

    /// <summary>Character device.</summary>
    Character = 2,
}

/// <summary>Allows or denies accesses to devices; of several rules that cover an access, the last decides.</summary>
/// <param name="Allow">Allow or deny.</param>
/// <param name="Type">Kind of device.</param>
/// <param name="Major">Major number, -1 for all.</param>
/// <param name="Minor">Minor number, -1 for all.</param>
/// <param name="Access">The accesses that the rule is about.</param>
public readonly record struct DeviceAccessRule(bool Allow, DeviceType Type, int Major, int Minor, DeviceAccess Access)
{
    /// <summary>Whether the rule is about the device.</summary>
    public bool Covers(DeviceType type, int major, int minor) =>
        (Type == DeviceType.Any || Type == type) && (Major < 0 || Major == major) && (Minor < 0 || Minor == minor);
}
