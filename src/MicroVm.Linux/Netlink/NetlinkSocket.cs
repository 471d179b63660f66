using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using MicroVm.Linux.Native;

namespace MicroVm.Linux.Netlink;

/// <summary>Gets a message of a dump: its body and attributes are in <paramref name="payload"/>.</summary>
/// <param name="type">RTM_NEW*.</param>
/// <param name="payload">Everything behind the header.</param>
public delegate void NetlinkReader(ushort type, ReadOnlySpan<byte> payload);

/// <summary>A NETLINK_ROUTE socket (netlink(7), rtnetlink(7)) of the network namespace in which it was opened; owns its descriptor.</summary>
public sealed unsafe class NetlinkSocket : IDisposable
{
    /// <summary>The operation that a <see cref="LinuxException"/> names when an answer was lost: the socket is of no more use.</summary>
    public const string Failure = "recv(NETLINK_ROUTE)";

    private const int BufferSize = 64 << 10;
    private const int DumpAttempts = 10;
    private readonly SafeFd _socket;

    // Not cleared: most answers touch a page of it.
    private readonly byte[] _buffer = GC.AllocateUninitializedArray<byte>(BufferSize);
    private uint _sequence;

    /// <summary>Opens a socket in the calling thread's network namespace.</summary>
    /// <exception cref="LinuxException">The kernel refuses.</exception>
    public NetlinkSocket()
    {
        _socket = SafeFd.From(Libc.socket(Libc.AF_NETLINK, Libc.SOCK_RAW | Libc.SOCK_CLOEXEC, Libc.NETLINK_ROUTE), "socket(NETLINK_ROUTE)");
        int one = 1;

        // Older kernels have neither: then errors come without a text, and dumps with more than was asked for.
        _ = Libc.setsockopt(_socket.Value, Libc.SOL_NETLINK, Libc.NETLINK_EXT_ACK, &one, sizeof(int));
        _ = Libc.setsockopt(_socket.Value, Libc.SOL_NETLINK, Libc.NETLINK_GET_STRICT_CHK, &one, sizeof(int));
    }

    /// <summary>Sends a request and waits for its answer.</summary>
    /// <exception cref="LinuxException">The kernel refused; the message names <paramref name="operation"/> and <paramref name="target"/>.</exception>
    public void Execute(NetlinkRequest request, string operation, string? target = null)
    {
        Errno errno = TryExecute(request, out string? text);
        if (errno != Errno.OK)
        {
            throw new LinuxException(errno, operation, text is null ? target : $"{target} ({text})");
        }
    }

    /// <summary>Sends a request and waits for its answer.</summary>
    /// <param name="request">The request, with NLM_F_ACK.</param>
    /// <param name="text">The kernel's own words for a failure, where it has any.</param>
    public Errno TryExecute(NetlinkRequest request, out string? text)
    {
        Send(request);
        return Receive(null, out text, out _);
    }

    /// <summary>
    /// Sends a dump request and hands every message of the answer over. An answer that the kernel calls inconsistent, since
    /// something changed meanwhile, is asked for again.
    /// </summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void Dump(NetlinkRequest request, string operation, NetlinkReader reader)
    {
        ArgumentNullException.ThrowIfNull(reader);
        List<(ushort Type, byte[] Payload)> messages = [];
        for (int attempt = 0; attempt < DumpAttempts; attempt++)
        {
            messages.Clear();
            Send(request);
            Errno errno = Receive((type, payload) => messages.Add((type, payload.ToArray())), out string? text, out bool interrupted);
            if (errno != Errno.OK)
            {
                throw new LinuxException(errno, operation, text);
            }

            if (!interrupted)
            {
                break;
            }
        }

        messages.ForEach(m => reader(m.Type, m.Payload));
    }

    /// <inheritdoc/>
    public void Dispose() => _socket.Dispose();

    private void Send(NetlinkRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        byte[] message = request.Finish(++_sequence);
        fixed (byte* p = message)
        {
            nint n;
            do
            {
                n = Libc.send(_socket.Value, p, (nuint)message.Length, 0);
            }
            while (Check.Retry(n));
            Check.Result(n, "send(NETLINK_ROUTE)");
        }
    }

    private Errno Receive(NetlinkReader? reader, out string? text, out bool interrupted)
    {
        text = null;
        interrupted = false;
        while (true)
        {
            nint n;
            fixed (byte* p = _buffer)
            {
                do
                {
                    n = Libc.recv(_socket.Value, p, BufferSize, Libc.MSG_TRUNC);
                }
                while (Check.Retry(n));
            }

            Check.Result(n, Failure);
            if (n > BufferSize)
            {
                throw new LinuxException(Errno.EMSGSIZE, Failure);
            }

            ReadOnlySpan<byte> rest = _buffer.AsSpan(0, (int)n);
            while (NetlinkMessages.TryNext(ref rest, out Libc.nlmsghdr header, out ReadOnlySpan<byte> payload))
            {
                if (header.nlmsg_seq != _sequence)
                {
                    continue;
                }

                interrupted |= (header.nlmsg_flags & Libc.NLM_F_DUMP_INTR) != 0;
                if (header.nlmsg_type is Libc.NLMSG_ERROR or Libc.NLMSG_DONE)
                {
                    int code = payload.Length >= 4 ? BinaryPrimitives.ReadInt32LittleEndian(payload) : 0;
                    text = code == 0 || header.nlmsg_type == Libc.NLMSG_DONE ? null : Explanation(payload, header.nlmsg_flags);
                    return (Errno)(-code);
                }

                reader?.Invoke(header.nlmsg_type, payload);
            }
        }
    }

    // NLMSG_ERROR: errno, the request's header (all of the request unless NLM_F_CAPPED), then attributes.
    private static string? Explanation(ReadOnlySpan<byte> payload, ushort flags)
    {
        const ushort Capped = 0x100, HasAttributes = 0x200;
        if ((flags & HasAttributes) == 0 || payload.Length < 4 + sizeof(Libc.nlmsghdr))
        {
            return null;
        }

        uint request = MemoryMarshal.Read<Libc.nlmsghdr>(payload[4..]).nlmsg_len;
        int skip = 4 + ((flags & Capped) != 0 ? sizeof(Libc.nlmsghdr) : (int)Math.Min((request + 3) & ~3u, (uint)payload.Length));
        if (skip > payload.Length)
        {
            return null;
        }

        string text = new NetlinkAttributes(payload[skip..]).Text(Libc.NLMSGERR_ATTR_MSG);
        return text.Length == 0 ? null : text;
    }
}
