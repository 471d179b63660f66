namespace MicroVm.VmmControl;

/// <summary>How a <c>microvm-vmm</c> process ended: its exit status.</summary>
public enum VmmExitCode
{
    /// <summary>The guest powered off.</summary>
    PoweredOff = 0,

    /// <summary>The configuration or the host: one line on standard error says what.</summary>
    Error = 1,

    /// <summary>The guest reset itself through the keyboard controller or the ACPI reset register (a panic does, too).</summary>
    Reset = 3,

    /// <summary>The guest triple-faulted (KVM_EXIT_SHUTDOWN).</summary>
    TripleFault = 4,

    /// <summary>A vCPU stopped in a way that cannot be continued: a line on standard error says at which instruction.</summary>
    GuestError = 5,

    /// <summary>Stopped through the control socket.</summary>
    Stopped = 6,
}
