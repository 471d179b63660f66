using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Devices.Net;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Machine;

/// <summary>Makes virtio-net devices and puts interfaces behind them.</summary>
internal static class NetFactory
{
    /// <summary>Adds a device to <paramref name="machine"/>, which owns it then.</summary>
    /// <exception cref="ConfigException">The tap cannot be used, or a value is not possible.</exception>
    public static void Add(VirtualMachine machine, NetConfig config, int index)
    {
        string setting = $"net[{index}]";
        if (config.QueuePairs is < 1 or > NetLimits.MaxPairs)
        {
            throw new ConfigException($"{setting}.queuePairs: {config.QueuePairs} is not 1 to {NetLimits.MaxPairs}");
        }

        NetDevice device = new($"net{index}", config.QueuePairs);
        if (config.Interface is { } settings)
        {
            SafeFd[] taps = [.. settings.Taps.Select(t => FileOpener.Open(t, Libc.O_RDWR, $"{setting}.interface.taps"))];
            if (Attach(device, taps, settings) is { } problem)
            {
                throw new ConfigException($"{setting}: {problem}");
            }
        }

        machine.AddDevice(device);
    }

    /// <summary>Puts an interface behind a device. Takes <paramref name="taps"/> over.</summary>
    /// <returns>Null, or why not.</returns>
    public static string? Attach(NetDevice device, SafeFd[] taps, NetAttachment settings)
    {
        string problem;
        try
        {
            device.Attach(taps, new NetInterface(ParseMac(settings.Mac), settings.Mtu, Limit(settings.Receive), Limit(settings.Transmit), settings.MtuMayChange, settings.LinkDown));
            return null;
        }
        catch (Exception e) when (e is ArgumentException or LinuxException)
        {
            problem = e.Message;
        }

        Array.ForEach(taps, t => t.Dispose());
        return problem;
    }

    /// <summary>Reads an interface's address.</summary>
    /// <exception cref="ArgumentException">It is none.</exception>
    public static MacAddress ParseMac(string text) => MacAddress.TryParse(text, out MacAddress mac)
        ? mac
        : throw new ArgumentException($"\"{text}\" is not an interface's address; write it as 02:00:5e:10:00:01");

    private static NetRateLimit Limit(RateLimit? limit)
    {
        if (limit is null)
        {
            return default;
        }

        long least = Math.Min(Math.Min(limit.BytesPerSecond, limit.BurstBytes), Math.Min(limit.PacketsPerSecond, limit.BurstPackets));
        return least >= 0
            ? new NetRateLimit(limit.BytesPerSecond, limit.BurstBytes, limit.PacketsPerSecond, limit.BurstPackets)
            : throw new ArgumentException($"a rate limit is negative: {least}");
    }
}
