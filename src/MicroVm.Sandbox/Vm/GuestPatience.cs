namespace MicroVm.Sandbox.Vm;

/// <summary>
/// How long this runtime waits for the guest of a container that is created. The guest may be hostile or wedged, so nothing that a
/// caller does to a container waits longer than these bounds; a start has bounds of its own (<see cref="VmOptions.StartTimeout"/>).
/// </summary>
internal static class GuestPatience
{
    /// <summary>For SIGKILL to the init: afterwards the VM is ended.</summary>
    internal static readonly TimeSpan Kill = TimeSpan.FromSeconds(2);

    /// <summary>From an answer to SIGKILL to the init's end: afterwards the VM is ended.</summary>
    internal static readonly TimeSpan Death = TimeSpan.FromSeconds(10);

    /// <summary>For any call to the agent.</summary>
    internal static readonly TimeSpan Call = TimeSpan.FromSeconds(10);

    /// <summary>For the start of a further process, whose executable the guest may have to read.</summary>
    internal static readonly TimeSpan Exec = TimeSpan.FromSeconds(30);

    /// <summary>For an answer of the VMM's control socket.</summary>
    internal static readonly TimeSpan Vmm = TimeSpan.FromSeconds(10);
}
