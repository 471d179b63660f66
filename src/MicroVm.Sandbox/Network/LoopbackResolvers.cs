using System.Globalization;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Netlink;
using MicroVm.Protocol.Names;

namespace MicroVm.Sandbox.Network;

/// <summary>
/// Addresses of a network namespace's loopback interface where an engine's resolver listens: a UDP socket at port 53, or at any port
/// of an address other than 127.0.0.1, to which rules of the namespace lead port 53 (Docker's 127.0.0.11).
/// </summary>
internal static class LoopbackResolvers
{
    private const string Table = "/proc/thread-self/net/udp";
    private const int MaxTable = 4 << 20, LoopbackNet = 127;
    private const uint Localhost = 0x0100007f;

    /// <summary>Looks for them in a namespace.</summary>
    /// <returns>IPv4 addresses in network byte order, ascending.</returns>
    /// <exception cref="LinuxException">The namespace cannot be looked at.</exception>
    internal static IReadOnlyList<uint> Find(NetworkNamespace network) =>
        Parse(network.Run(() => Encoding.ASCII.GetString(HostFile.ReadAllBytes(Table, MaxTable))));

    /// <summary>Parses /proc/net/udp (proc_pid_net(5)), whose second column is ADDRESS:PORT in hexadecimal.</summary>
    internal static IReadOnlyList<uint> Parse(string table)
    {
        SortedSet<uint> found = [];
        foreach (ReadOnlySpan<char> line in table.AsSpan().EnumerateLines())
        {
            int colon = line.IndexOf(':');
            if (colon < 0)
            {
                continue;
            }

            ReadOnlySpan<char> local = line[(colon + 1)..].TrimStart();
            if (local.Length > 12 && local[8] == ':'
                && uint.TryParse(local[..8], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out uint address)
                && ushort.TryParse(local.Slice(9, 4), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ushort port)
                && (address & 0xff) == LoopbackNet && (port == NameFrame.Port || address != Localhost) && found.Count < NameFrame.MaxAddresses)
            {
                found.Add(address);
            }
        }

        return [.. found];
    }
}
