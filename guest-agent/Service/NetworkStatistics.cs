using System.Globalization;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Service;

/// <summary>Reads /proc/PID/net/dev (proc(5)).</summary>
public static class NetworkStatistics
{
    /// <summary>The interfaces except for the loopback one; lines that are not understood are left out.</summary>
    public static IEnumerable<NetworkInterfaceStats> Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        foreach (string line in text.Split('\n'))
        {
            int colon = line.IndexOf(':', StringComparison.Ordinal);
            string name = colon < 0 ? "" : line[..colon].Trim();
            string[] fields = colon < 0 ? [] : line[(colon + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (name.Length == 0 || name == "lo" || fields.Length < 12)
            {
                continue;
            }

            ulong[] numbers = new ulong[fields.Length];
            bool valid = true;
            for (int i = 0; i < fields.Length; i++)
            {
                valid &= ulong.TryParse(fields[i], NumberStyles.None, CultureInfo.InvariantCulture, out numbers[i]);
            }

            if (valid)
            {
                yield return new NetworkInterfaceStats
                {
                    Name = name,
                    RxBytes = numbers[0],
                    RxPackets = numbers[1],
                    RxErrors = numbers[2],
                    RxDropped = numbers[3],
                    TxBytes = numbers[8],
                    TxPackets = numbers[9],
                    TxErrors = numbers[10],
                    TxDropped = numbers[11],
                };
            }
        }
    }
}
