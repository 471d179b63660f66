using System.Runtime.InteropServices;
using MicroVm.Linux.Native;

namespace MicroVm.Linux.Netlink;

/// <summary>
/// Hears of changes to the network namespace in which it was made: links, addresses, routes, rules, neighbours (rtnetlink(7)
/// groups). What exactly changed is to be read anew: the kernel tells nothing of routes that end with their link, and drops
/// messages for who is slow. Owns its descriptor.
/// </summary>
public sealed unsafe class NetlinkMonitor : IDisposable
{
    /// <summary>The operation that a <see cref="LinuxException"/> of <see cref="Drain"/> names: the monitor is of no more use.</summary>
    public const string Failure = NetlinkSocket.Failure;

    private const int BufferSize = 32 << 10;

    private static readonly uint[] Groups =
    [
        Libc.RTNLGRP_LINK, Libc.RTNLGRP_NEIGH, Libc.RTNLGRP_IPV4_IFADDR, Libc.RTNLGRP_IPV6_IFADDR,
        Libc.RTNLGRP_IPV4_ROUTE, Libc.RTNLGRP_IPV6_ROUTE, Libc.RTNLGRP_IPV4_RULE, Libc.RTNLGRP_IPV6_RULE,
    ];

    private readonly byte[] _buffer = GC.AllocateUninitializedArray<byte>(BufferSize);

    /// <summary>Listens from now on, in the calling thread's network namespace.</summary>
    /// <param name="receiveBytes">Size of the kernel's queue of messages; 0 for its default.</param>
    /// <exception cref="LinuxException">The kernel refuses.</exception>
    public NetlinkMonitor(int receiveBytes = 0)
    {
        Fd = SafeFd.From(Libc.socket(Libc.AF_NETLINK, Libc.SOCK_RAW | Libc.SOCK_CLOEXEC | Libc.SOCK_NONBLOCK, Libc.NETLINK_ROUTE), "socket(NETLINK_ROUTE)");
        try
        {
            if (receiveBytes > 0)
            {
                Check.Result(Libc.setsockopt(Fd.Value, Libc.SOL_SOCKET, Libc.SO_RCVBUF, &receiveBytes, sizeof(int)), "setsockopt(SO_RCVBUF)");
            }

            Libc.sockaddr_nl address = new() { nl_family = Libc.AF_NETLINK };
            foreach (uint group in Groups)
            {
                address.nl_groups |= 1u << (int)(group - 1);
            }

            Check.Result(Libc.bind(Fd.Value, &address, (uint)sizeof(Libc.sockaddr_nl)), "bind(NETLINK_ROUTE)");
        }
        catch
        {
            Fd.Dispose();
            throw;
        }
    }

    /// <summary>Readable when something changed; owned by this object.</summary>
    public SafeFd Fd { get; }

    /// <summary>Messages that the kernel dropped, in occasions.</summary>
    public long Overflows { get; private set; }

    /// <summary>Takes all messages that wait. Does not block.</summary>
    /// <param name="removed">Gets the indexes of the links that are gone.</param>
    /// <returns>Whether anything may have changed: there were messages, or some were lost.</returns>
    /// <exception cref="LinuxException">The socket failed.</exception>
    public bool Drain(ICollection<int> removed)
    {
        ArgumentNullException.ThrowIfNull(removed);
        bool changed = false;
        while (true)
        {
            nint n;
            fixed (byte* p = _buffer)
            {
                n = Libc.recv(Fd.Value, p, BufferSize, 0);
            }

            if (n >= 0)
            {
                changed = true;
                CollectRemoved(_buffer.AsSpan(0, (int)n), removed);
                continue;
            }

            switch (Check.LastErrno)
            {
                case Errno.EAGAIN:
                    return changed;
                case Errno.EINTR:
                    break;
                case Errno.ENOBUFS:
                    Overflows++;
                    changed = true;
                    break;
                default:
                    Check.Throw(Failure);
                    break;
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose() => Fd.Dispose();

    private static void CollectRemoved(ReadOnlySpan<byte> rest, ICollection<int> removed)
    {
        while (NetlinkMessages.TryNext(ref rest, out Libc.nlmsghdr header, out ReadOnlySpan<byte> payload))
        {
            // Bridges tell in the same way of ports that leave them.
            if (header.nlmsg_type == Libc.RTM_DELLINK && MemoryMarshal.TryRead(payload, out Libc.ifinfomsg body) && body.ifi_family == 0)
            {
                removed.Add(body.ifi_index);
            }
        }
    }
}
