using MicroVm.Agent.Boot;
using MicroVm.Agent.Cgroups;
using MicroVm.Linux;

namespace MicroVm.Agent.Network;

/// <summary>Binds drivers to virtio-mmio windows that got their device after the guest's boot.</summary>
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
}
