using MicroVm.Linux;
using MicroVm.Virtio.Mmio;
using MicroVm.Vmm.Devices.Mem;
using MicroVm.Vmm.Machine;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Control;

/// <summary>Requests of the control socket about the guest's RAM.</summary>
internal static class MemoryOperations
{
    private const int MiBShift = 20;

    /// <summary>Asks the guest to have so much RAM beyond that which it booted with; counters tell what it has.</summary>
    public static ControlResponse Resize(VirtualMachine machine, int addedMiB)
    {
        if (machine.Transports.Select(t => t.Device).OfType<MemDevice>().FirstOrDefault() is not { } device)
        {
            return Failure("the VM has no virtio-mem device (growthMiB)");
        }

        if (addedMiB < 0 || addedMiB % 2 != 0 || (ulong)addedMiB > device.RegionSize >> MiBShift)
        {
            return Failure($"{addedMiB} MiB are not an even number up to {device.RegionSize >> MiBShift}");
        }

        try
        {
            device.Request((ulong)addedMiB << MiBShift);
            return new ControlResponse();
        }
        catch (LinuxException e)
        {
            return Failure(e.Message);
        }
    }

    private static ControlResponse Failure(string error) => new() { Error = $"resizeMemory: {error}" };
}
