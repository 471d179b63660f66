using System.Globalization;

namespace MicroVm.Cli.Doctor;

/// <summary>What the kernel says about this process (proc_pid_status(5)).</summary>
internal static class ProcessStatus
{
    /// <summary>Whether the capability of this number is in the effective set.</summary>
    internal static bool HasCapability(int number)
    {
        foreach (string line in (HostText.Read("/proc/self/status") ?? "").Split('\n'))
        {
            if (line.StartsWith("CapEff:", StringComparison.Ordinal))
            {
                return (ulong.Parse(line.AsSpan(7).Trim(), NumberStyles.HexNumber, CultureInfo.InvariantCulture) >> number & 1) != 0;
            }
        }

        return false;
    }
}
