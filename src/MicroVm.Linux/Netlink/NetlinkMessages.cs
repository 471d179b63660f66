using System.Runtime.InteropServices;
using MicroVm.Linux.Native;

namespace MicroVm.Linux.Netlink;

/// <summary>The messages of one datagram. A malformed one ends them.</summary>
internal static unsafe class NetlinkMessages
{
    /// <summary>Takes the first message of <paramref name="rest"/> off.</summary>
    internal static bool TryNext(scoped ref ReadOnlySpan<byte> rest, out Libc.nlmsghdr header, out ReadOnlySpan<byte> payload)
    {
        payload = default;
        if (!MemoryMarshal.TryRead(rest, out header) || header.nlmsg_len < sizeof(Libc.nlmsghdr) || header.nlmsg_len > rest.Length)
        {
            return false;
        }

        payload = rest[sizeof(Libc.nlmsghdr)..(int)header.nlmsg_len];
        rest = rest[(int)Math.Min((uint)rest.Length, (header.nlmsg_len + 3) & ~3u)..];
        return true;
    }
}
