using MicroVm.Agent.Boot;
using MicroVm.Agent.Cgroups;
using MicroVm.Linux;

namespace MicroVm.Agent.Network;

/// <summary>Binds drivers to virtio-mmio windows that got their device after the guest's boot, and takes them off again.</summary>
public static class NetworkDrivers
{
    private const string Driver = "/sys/bus/platform/drivers/virtio-mmio";

    /// <summary>Tries every window without a driver; the ones that still have no device refuse (virtio 1.2, 4.2.3.1.1).</summary>
    /// <exception cref="LinuxException">sysfs cannot be mounted.</exception>
    public static void BindAll()
    {
        GuestMounts.NeedSysfs();
        foreach (string window in Directory.EnumerateFileSystemEntries("/sys/bus/platform/devices", "virtio-mmio.*"))
        {
            string name = Path.GetFileName(window);
            if (Directory.Exists($"{Driver}/{name}"))
            {
                continue;
            }

            try
            {
                SmallFile.Write(null, Driver + "/bind", name);
            }
            catch (LinuxException e) when (e.Errno == Errno.ENODEV)
            {
                Log.Debug($"{name}: no device yet");
            }
        }
    }

    /// <summary>Takes the driver off the device behind a network interface, which ends the interface.</summary>
    /// <returns>False when the interface has no such device.</returns>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static bool Unbind(string networkInterface)
    {
        if (!Directory.Exists(Driver))
        {
            GuestMounts.NeedSysfs();
        }

        // /sys/devices/platform/virtio-mmio.5/virtio3/net/eth0
        string? path = new DirectoryInfo($"/sys/class/net/{networkInterface}").ResolveLinkTarget(returnFinalTarget: true)?.FullName;
        string? window = path?.Split('/').FirstOrDefault(p => Directory.Exists($"{Driver}/{p}") && p.StartsWith("virtio-mmio.", StringComparison.Ordinal));
        if (window is null)
        {
            return false;
        }

        SmallFile.Write(null, Driver + "/unbind", window);
        return true;
    }
}
