using System.Globalization;
using System.Text;
using MicroVm.Linux;

namespace MicroVm.Sandbox;

/// <summary>Facts of the host.</summary>
public static class Host
{
    /// <summary>Memory in MiB.</summary>
    public static long MemoryMiB => MemoryInfo("MemTotal");

    /// <summary>Memory in MiB that can be used without swapping.</summary>
    public static long AvailableMemoryMiB => MemoryInfo("MemAvailable");

    private static long MemoryInfo(string name)
    {
        foreach (string line in Encoding.ASCII.GetString(HostFile.ReadAllBytes("/proc/meminfo", 64 << 10)).Split('\n'))
        {
            string[] fields = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (fields.Length >= 2 && fields[0] == name + ":")
            {
                return long.Parse(fields[1], CultureInfo.InvariantCulture) / 1024;
            }
        }

        throw new SandboxException($"/proc/meminfo has no {name}");
    }
}
