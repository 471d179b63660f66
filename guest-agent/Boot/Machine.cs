using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Boot;

/// <summary>The end of the machine.</summary>
public static unsafe class Machine
{
    // microvm-vmm's power port, and what it takes for "off".
    private const long PowerPort = 0x600;
    private const byte PowerOffValue = 0x34;

    /// <summary>Powers the machine off. Returns only where that is impossible, and the kernel then panics since PID 1 ends.</summary>
    public static void PowerOff()
    {
        try
        {
            using SafeFd port = GuestDeviceNodes.Open("/dev/port", 1, 4, Libc.O_WRONLY);
            byte value = PowerOffValue;
            _ = Libc.pwrite(port.Value, &value, 1, PowerPort);
        }
        catch (LinuxException e)
        {
            Log.Warn($"power port: {e.Message}");
        }

        _ = Libc.reboot(Libc.RB_POWER_OFF);
        // A kernel that knows no way to power off halts; a reset ends the VMM as well.
        _ = Libc.reboot(Libc.RB_AUTOBOOT);
    }
}
