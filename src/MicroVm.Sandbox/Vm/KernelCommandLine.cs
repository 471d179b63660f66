namespace MicroVm.Sandbox.Vm;

/// <summary>The guest kernel's command line. The VMM adds the devices, and what the kind of host needs.</summary>
public static class KernelCommandLine
{
    /// <summary>
    /// A console for panics only (each character of it costs an exit), and a panic that resets at once. The agent is
    /// /init of the initramfs.
    /// </summary>
    public const string Base = "console=ttyS0 quiet reboot=k panic=-1";

    /// <summary>The whole command line; what is added comes last and so wins.</summary>
    public static string Build(string added) => added.Length == 0 ? Base : $"{Base} {added}";
}
