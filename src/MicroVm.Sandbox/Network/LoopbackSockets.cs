using System.Buffers.Binary;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Netlink;

namespace MicroVm.Sandbox.Network;

/// <summary>
/// Sockets that get every TCP connection which is made to 127.0.0.1 or ::1 in a network namespace of the host, whatever its port: an eBPF
/// program at the namespace's socket lookup (BPF_PROG_TYPE_SK_LOOKUP, Linux 5.9) selects them. All of it ends with its descriptors.
/// </summary>
internal sealed unsafe class LoopbackSockets : IDisposable
{
    /// <summary>127.0.0.2 in network byte order: connections from there find the namespace's own sockets.</summary>
    internal const uint OwnSource = 0x0200007f;
    private const uint Localhost = 0x0100007f, LastOfLocalhost6 = 0x01000000;

    // Where the socket for 127.0.0.1 is bound, at a port that the kernel chooses: an address that nobody else uses.
    private const uint Home = 0x564d007f;
    private const int Backlog = 128;

    // struct bpf_sk_lookup; R1 points to it, R0 is the result.
    private const short FamilyOffset = 8, ProtocolOffset = 12, RemoteOffset = 16, LocalOffset = 40, Local6Offset = 44;
    private readonly List<SafeFd> _kept = [];
    private readonly List<SafeFd> _listeners = [];

    private LoopbackSockets()
    {
    }

    /// <summary>The listening sockets, non-blocking: for 127.0.0.1, and for ::1 where the namespace has it.</summary>
    internal IReadOnlyList<SafeFd> Listeners => _listeners;

    /// <summary>Makes sockets and program for a namespace.</summary>
    /// <param name="network">The namespace.</param>
    /// <exception cref="LinuxException">The kernel is older, or this process may not load programs.</exception>
    internal static LoopbackSockets Open(NetworkNamespace network)
    {
        LoopbackSockets made = new();
        try
        {
            network.Run(() =>
            {
                made._listeners.Add(Listen());
                if (TryListen6() is { } six)
                {
                    made._listeners.Add(six);
                }

                return 0;
            });
            SafeFd map = made.MakeMap();
            SafeFd program = BpfProgram.Load(Libc.BPF_PROG_TYPE_SK_LOOKUP, Libc.BPF_SK_LOOKUP, Program(map.Value));
            made._kept.Add(program);
            uint* attr = stackalloc uint[4];
            (attr[0], attr[1], attr[2], attr[3]) = ((uint)program.Value, (uint)network.Fd.Value, Libc.BPF_SK_LOOKUP, 0);
            made._kept.Add(SafeFd.From(Libc.bpf(Libc.BPF_LINK_CREATE, attr, sizeof(uint) * 4), "bpf(BPF_LINK_CREATE)"));
            return made;
        }
        catch
        {
            made.Dispose();
            throw;
        }
    }

    /// <summary>Takes a waiting connection, which is non-blocking.</summary>
    /// <param name="listener">One of <see cref="Listeners"/>.</param>
    /// <param name="port">Where it was made to.</param>
    /// <param name="six">It was made to ::1, not to 127.0.0.1.</param>
    /// <returns>Null when none waits.</returns>
    internal static SafeFd? TryAccept(SafeFd listener, out ushort port, out bool six)
    {
        while (true)
        {
            SafeFd client = new(Libc.accept4(listener.Value, null, null, Libc.SOCK_CLOEXEC | Libc.SOCK_NONBLOCK));
            Libc.sockaddr_in6 to;
            uint length = (uint)sizeof(Libc.sockaddr_in6);
            (port, six) = (0, false);
            if (client.IsInvalid)
            {
                if (Check.LastErrno is Errno.EINTR or Errno.ECONNABORTED)
                {
                    continue;
                }

                return null;
            }

            if (Libc.getsockname(client.Value, &to, &length) == 0)
            {
                six = to.sin6_family == Libc.AF_INET6;
                port = BinaryPrimitives.ReverseEndianness(to.sin6_port);
                if (six || ((Libc.sockaddr_in*)&to)->sin_addr == Localhost)
                {
                    return client;
                }
            }

            // To the socket's own address.
            client.Dispose();
        }
    }

    public void Dispose()
    {
        _kept.ForEach(f => f.Dispose());
        _listeners.ForEach(f => f.Dispose());
    }

    /// <summary>
    /// The program, as an array of struct bpf_insn: for TCP to localhost the socket in the map is selected, the first or for IPv6 the second;
    /// where there is none, and for all else, the lookup goes its usual way.
    /// </summary>
    internal static ulong[] Program(int map) =>
    [
        BpfProgram.Instruction(0xbf, 6, 1, 0, 0), // r6 = r1
        BpfProgram.Instruction(0x61, 2, 6, ProtocolOffset, 0), // r2 = protocol
        BpfProgram.Instruction(0x56, 2, 0, 30, Libc.IPPROTO_TCP), // if w2 != IPPROTO_TCP goto out
        BpfProgram.Instruction(0x61, 2, 6, FamilyOffset, 0), // r2 = family
        BpfProgram.Instruction(0x16, 2, 0, 6, Libc.AF_INET6), // if w2 == AF_INET6 goto six
        BpfProgram.Instruction(0x61, 2, 6, LocalOffset, 0), // r2 = local_ip4
        BpfProgram.Instruction(0x56, 2, 0, 26, Localhost), // if w2 != 127.0.0.1 goto out
        BpfProgram.Instruction(0x61, 2, 6, RemoteOffset, 0), // r2 = remote_ip4
        BpfProgram.Instruction(0x16, 2, 0, 24, OwnSource), // if w2 == 127.0.0.2 goto out
        BpfProgram.Instruction(0x62, 10, 0, -4, 0), // key = 0
        BpfProgram.Instruction(0x05, 0, 0, 9, 0), // goto select
        BpfProgram.Instruction(0x61, 2, 6, Local6Offset, 0), // six: r2 = local_ip6[0]
        BpfProgram.Instruction(0x56, 2, 0, 20, 0), // if w2 != 0 goto out
        BpfProgram.Instruction(0x61, 2, 6, Local6Offset + 4, 0),
        BpfProgram.Instruction(0x56, 2, 0, 18, 0),
        BpfProgram.Instruction(0x61, 2, 6, Local6Offset + 8, 0),
        BpfProgram.Instruction(0x56, 2, 0, 16, 0),
        BpfProgram.Instruction(0x61, 2, 6, Local6Offset + 12, 0),
        BpfProgram.Instruction(0x56, 2, 0, 14, LastOfLocalhost6),
        BpfProgram.Instruction(0x62, 10, 0, -4, 1), // key = 1
        BpfProgram.Instruction(0x18, 1, Libc.BPF_PSEUDO_MAP_FD, 0, (uint)map), // select: r1 = map
        0,
        BpfProgram.Instruction(0xbf, 2, 10, 0, 0), // r2 = r10
        BpfProgram.Instruction(0x07, 2, 0, 0, unchecked((uint)-4)), // r2 += -4
        BpfProgram.Instruction(0x85, 0, 0, 0, Libc.BPF_FUNC_map_lookup_elem),
        BpfProgram.Instruction(0x15, 0, 0, 7, 0), // if r0 == 0 goto out
        BpfProgram.Instruction(0xbf, 7, 0, 0, 0), // r7 = r0
        BpfProgram.Instruction(0xbf, 1, 6, 0, 0), // r1 = r6
        BpfProgram.Instruction(0xbf, 2, 7, 0, 0), // r2 = r7
        BpfProgram.Instruction(0xb7, 3, 0, 0, 0), // r3 = 0
        BpfProgram.Instruction(0x85, 0, 0, 0, Libc.BPF_FUNC_sk_assign),
        BpfProgram.Instruction(0xbf, 1, 7, 0, 0), // r1 = r7
        BpfProgram.Instruction(0x85, 0, 0, 0, Libc.BPF_FUNC_sk_release),
        BpfProgram.Instruction(0xb7, 0, 0, 0, 1), // out: r0 = SK_PASS
        BpfProgram.Instruction(0x95, 0, 0, 0, 0), // exit
    ];

    private static SafeFd Listen()
    {
        SafeFd socket = SafeFd.From(Libc.socket(Libc.AF_INET, Libc.SOCK_STREAM | Libc.SOCK_CLOEXEC | Libc.SOCK_NONBLOCK, 0), "socket(AF_INET)");
        try
        {
            Libc.sockaddr_in home = new() { sin_family = Libc.AF_INET, sin_addr = Home };
            Check.Result(Libc.bind(socket.Value, &home, (uint)sizeof(Libc.sockaddr_in)), "bind(AF_INET)");
            Check.Result(Libc.listen(socket.Value, Backlog), "listen(AF_INET)");
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    // Engines turn IPv6 off in many namespaces.
    private static SafeFd? TryListen6()
    {
        SafeFd socket = new(Libc.socket(Libc.AF_INET6, Libc.SOCK_STREAM | Libc.SOCK_CLOEXEC | Libc.SOCK_NONBLOCK, 0));
        int yes = 1;
        Libc.sockaddr_in6 home = new() { sin6_family = Libc.AF_INET6 };
        home.sin6_addr[15] = 1;
        if (!socket.IsInvalid && Libc.setsockopt(socket.Value, Libc.IPPROTO_IPV6, Libc.IPV6_V6ONLY, &yes, sizeof(int)) == 0
            && Libc.bind(socket.Value, &home, (uint)sizeof(Libc.sockaddr_in6)) == 0 && Libc.listen(socket.Value, Backlog) == 0)
        {
            return socket;
        }

        socket.Dispose();
        return null;
    }

    // A map of the listeners, by their places in the list.
    private SafeFd MakeMap()
    {
        const int mapSize = 20, updateSize = 32;
        byte* attr = stackalloc byte[updateSize];
        new Span<byte>(attr, updateSize).Clear();
        (((uint*)attr)[0], ((uint*)attr)[1], ((uint*)attr)[2], ((uint*)attr)[3]) = (Libc.BPF_MAP_TYPE_SOCKMAP, sizeof(uint), sizeof(ulong), 2);
        SafeFd map = SafeFd.From(Libc.bpf(Libc.BPF_MAP_CREATE, attr, mapSize), "bpf(BPF_MAP_CREATE)");
        _kept.Add(map);
        for (uint i = 0; i < _listeners.Count; i++)
        {
            ulong socket = (ulong)_listeners[(int)i].Value;
            uint key = i;
            new Span<byte>(attr, updateSize).Clear();
            (((uint*)attr)[0], ((ulong*)attr)[1], ((ulong*)attr)[2]) = ((uint)map.Value, (ulong)&key, (ulong)&socket);
            Check.Result(Libc.bpf(Libc.BPF_MAP_UPDATE_ELEM, attr, updateSize), "bpf(BPF_MAP_UPDATE_ELEM)");
        }

        return map;
    }
}
