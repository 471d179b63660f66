namespace MicroVm.Sandbox.Vm;

/// <summary>The guest kernel's command line. The VMM adds the devices, and what the kind of host needs.</summary>
public static class VmCommandLine
{
    /// <summary>
    /// A console for panics only (each character of it costs an exit), a panic that resets at once, and no interface dummy0, which
    /// a container would see.
    /// </summary>
    public const string Base = "console=ttyS0 quiet reboot=k panic=-1 dummy.numdummies=0";

    /// <summary>Boots the agent's image: mapped from the VMM's memory, not read. The device is found a moment after the others.</summary>
    public const string AgentImage = "root=/dev/pmem0 rootfstype=erofs rootflags=dax ro rootwait init=/init";

    /// <summary>The whole command line; what is added comes last and so wins.</summary>
    public static string Build(string added, bool initramfs = false) =>
        (initramfs ? $"{Base} {added}" : $"{Base} {AgentImage} {added}").TrimEnd();
}
