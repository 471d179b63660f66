using System.Runtime.InteropServices;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Tests.Shared.Virtio;

/// <summary>
/// A tap interface in a network namespace of its own, which nothing else is in, and a packet socket on its other side. Both
/// live as long as this object.
/// </summary>
internal sealed unsafe class TapNamespace : IDisposable
{
    private const int AfPacket = 17;
    private const int EthPAll = 0x0300;
    private const int SolPacket = 263;
    private const int PacketVnetHeader = 15;
    private const int PacketIgnoreOutgoing = 23;
    private const int SoRcvBufForce = 33;
    private const int WireBytes = 16 << 20;

    private TapNamespace(SafeFd[] taps, SafeFd wire) => (Taps, Wire) = (taps, wire);

    /// <summary>Null when namespaces and taps can be made; else why not.</summary>
    public static string? Missing { get; } =
        Libc.geteuid() != 0 ? "NOT ROOT: no network namespace can be made, virtio-net is not tested on a tap"
        : !File.Exists("/dev/net/tun") ? "NO /dev/net/tun: virtio-net is not tested on a tap"
        : null;

    /// <summary>The tap's descriptors; whoever takes them owns them.</summary>
    public SafeFd[] Taps { get; }

    /// <summary>Sends into the tap and sees what it sent.</summary>
    public SafeFd Wire { get; }

    /// <summary>Makes it.</summary>
    /// <param name="queues">Number of the tap's descriptors.</param>
    /// <param name="mtu">Its MTU.</param>
    /// <param name="headers">Frames on the wire have a struct virtio_net_hdr (10 bytes) before them: how the kernel understood them.</param>
    public static TapNamespace Create(int queues = 1, int mtu = 1500, bool headers = false)
    {
        TapNamespace? made = null;
        Exception? failure = null;
        Thread thread = new(() =>
        {
            try
            {
                Check.Result(Libc.unshare(Libc.CLONE_NEWNET), "unshare(CLONE_NEWNET)");
                made = Make(queues, mtu, headers);
            }
            catch (Exception e)
            {
                failure = e;
            }
        });
        thread.Start();
        thread.Join();
        return made ?? throw new InvalidOperationException("no tap", failure);
    }

    /// <summary>Sends a frame into the tap, for the guest; with a header before it where the wire has them.</summary>
    /// <param name="frame">The frame.</param>
    /// <param name="wait">Waits for room while the tap is full of frames that the guest does not take.</param>
    public bool Send(ReadOnlySpan<byte> frame, bool wait = true)
    {
        fixed (byte* p = frame)
        {
            return Libc.send(Wire.Value, p, (nuint)frame.Length, wait ? 0 : Libc.MSG_DONTWAIT) == frame.Length;
        }
    }

    /// <summary>The next frame that came out of the tap; null when there is none.</summary>
    public byte[]? TryReceive()
    {
        byte[] buffer = new byte[70000];
        fixed (byte* p = buffer)
        {
            nint n = Libc.recv(Wire.Value, p, (nuint)buffer.Length, Libc.MSG_DONTWAIT);
            return n < 0 ? null : buffer[..(int)n];
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Wire.Dispose();
        Array.ForEach(Taps, t => t.Dispose());
    }

    private static TapNamespace Make(int queues, int mtu, bool headers)
    {
        // No neighbour discovery of the namespace's own.
        File.WriteAllText("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
        SafeFd[] taps = new SafeFd[queues];
        Libc.ifreq request = default;
        for (int i = 0; i < queues; i++)
        {
            taps[i] = SafeFd.From(Libc.open("/dev/net/tun", Libc.O_RDWR | Libc.O_CLOEXEC, 0), "open", "/dev/net/tun");
            Encoding.ASCII.GetBytes("tap0", new Span<byte>(request.ifr_name, Libc.IFNAMSIZ));
            request.ifr_flags = (short)(Libc.IFF_TAP | Libc.IFF_NO_PI | Libc.IFF_VNET_HDR | (queues > 1 ? Libc.IFF_MULTI_QUEUE : 0));
            Check.Result(Libc.ioctl(taps[i].Value, Libc.TUNSETIFF, &request), "ioctl(TUNSETIFF)");
        }

        SafeFd wire = SafeFd.From(Libc.socket(AfPacket, Libc.SOCK_RAW | Libc.SOCK_CLOEXEC, EthPAll), "socket(AF_PACKET)");
        const nuint SiocSifMtu = 0x8922;
        request.ifr_ifindex = mtu;
        Check.Result(Libc.ioctl(wire.Value, SiocSifMtu, &request), "ioctl(SIOCSIFMTU)");
        request.ifr_ifindex = 0;
        request.ifr_flags = Libc.IFF_UP;
        Check.Result(Libc.ioctl(wire.Value, Libc.SIOCSIFFLAGS, &request), "ioctl(SIOCSIFFLAGS)");
        Check.Result(Libc.ioctl(wire.Value, (nuint)Libc.SIOCGIFINDEX, &request), "ioctl(SIOCGIFINDEX)");
        byte* address = stackalloc byte[20];
        new Span<byte>(address, 20).Clear();
        MemoryMarshal.Write(new Span<byte>(address, 20), (ushort)AfPacket);
        MemoryMarshal.Write(new Span<byte>(address + 2, 2), (ushort)EthPAll);
        MemoryMarshal.Write(new Span<byte>(address + 4, 4), request.ifr_ifindex);
        Check.Result(Libc.bind(wire.Value, address, 20), "bind");
        int one = 1;
        int room = WireBytes;
        Check.Result(Libc.setsockopt(wire.Value, SolPacket, PacketIgnoreOutgoing, &one, sizeof(int)), "setsockopt(PACKET_IGNORE_OUTGOING)");
        Check.Result(Libc.setsockopt(wire.Value, Libc.SOL_SOCKET, SoRcvBufForce, &room, sizeof(int)), "setsockopt(SO_RCVBUFFORCE)");
        int vnet = headers ? 1 : 0;
        Check.Result(Libc.setsockopt(wire.Value, SolPacket, PacketVnetHeader, &vnet, sizeof(int)), "setsockopt(PACKET_VNET_HDR)");
        return new TapNamespace(taps, wire);
    }
}
