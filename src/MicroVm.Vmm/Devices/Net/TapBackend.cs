using System.Runtime.InteropServices;
using MicroVm.Bus.Counters;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Vmm.Devices.Net;

/// <summary>
/// A tap interface of the host (Documentation/networking/tuntap.rst), by one descriptor for each queue pair; owns them.
/// Its frames carry a <see cref="NetHeader"/>.
/// </summary>
internal sealed unsafe class TapBackend : IDisposable
{
    // linux/if_tun.h since 6.2.
    private const int TunUso4 = 0x20;
    private const int TunUso6 = 0x40;

    private static readonly (ulong Guest, int Tun)[] Offloads =
    [
        (NetFeature.GuestCsum, Libc.TUN_F_CSUM),
        (NetFeature.GuestTso4, Libc.TUN_F_TSO4),
        (NetFeature.GuestTso6, Libc.TUN_F_TSO6),
        (NetFeature.GuestEcn, Libc.TUN_F_TSO_ECN),
        (NetFeature.GuestUfo, Libc.TUN_F_UFO),
        (NetFeature.GuestUso4, TunUso4),
        (NetFeature.GuestUso6, TunUso6),
    ];

    private readonly bool[] _attached;
    private int _toldGone;

    private TapBackend(string name, SafeFd[] queues, bool hasUso)
    {
        Name = name;
        Queues = queues;
        HasUso = hasUso;
        _attached = new bool[queues.Length];
        Array.Fill(_attached, true);
    }

    /// <summary>The interface's name.</summary>
    public string Name { get; }

    /// <summary>The descriptors, non-blocking, one a queue pair.</summary>
    public IReadOnlyList<SafeFd> Queues { get; }

    /// <summary>The kernel takes and gives UDP segments (6.2 and later).</summary>
    public bool HasUso { get; }

    /// <summary>Logs that the interface was deleted: once, as a guest that resets its device would find out again and again. Any thread.</summary>
    public void TellGone(string device)
    {
        if (Interlocked.Exchange(ref _toldGone, 1) == 0)
        {
            VmmLog.Write($"{device}: the tap interface {Name} is gone");
        }
    }

    /// <summary>Checks and prepares the descriptors, which are taken over.</summary>
    /// <exception cref="ArgumentException">One is no tap with a virtio-net header, or they are not of one interface.</exception>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static TapBackend Open(SafeFd[] queues)
    {
        string name = "";
        bool uso = true;
        foreach (SafeFd queue in queues)
        {
            Libc.ifreq request = default;
            if (Libc.ioctl(queue.Value, Libc.TUNGETIFF, &request) != 0)
            {
                throw new ArgumentException("a descriptor is not a tap interface's; open /dev/net/tun and use TUNSETIFF");
            }

            const int Wanted = Libc.IFF_TAP | Libc.IFF_NO_PI | Libc.IFF_VNET_HDR;
            string text = Marshal.PtrToStringUTF8((nint)request.ifr_name) ?? "";
            if ((request.ifr_flags & Wanted) != Wanted || (queues.Length > 1 && (request.ifr_flags & Libc.IFF_MULTI_QUEUE) == 0))
            {
                throw new ArgumentException(
                    $"{text} must be made with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR, and with IFF_MULTI_QUEUE for several queue pairs");
            }

            if (name.Length > 0 && name != text)
            {
                throw new ArgumentException($"the descriptors are of different interfaces: {name} and {text}");
            }

            name = text;
            int size = NetHeader.Size;
            Check.Result(Libc.ioctl(queue.Value, Libc.TUNSETVNETHDRSZ, &size), "ioctl(TUNSETVNETHDRSZ)", name);
            int flags = Check.Result(Libc.fcntl(queue.Value, Libc.F_GETFL, 0), "fcntl(F_GETFL)", name);
            Check.Result(Libc.fcntl(queue.Value, Libc.F_SETFL, flags | Libc.O_NONBLOCK), "fcntl(F_SETFL)", name);
            uso &= Libc.ioctl(queue.Value, Libc.TUNSETOFFLOAD, (nint)(Libc.TUN_F_CSUM | TunUso4 | TunUso6)) == 0;
            Check.Result(Libc.ioctl(queue.Value, Libc.TUNSETOFFLOAD, (nint)0), "ioctl(TUNSETOFFLOAD)", name);
        }

        return new TapBackend(name, queues, uso);
    }

    /// <summary>Tells the kernel which unfinished frames the guest takes.</summary>
    /// <param name="features">NetFeature.Guest* bits.</param>
    /// <returns>False when the kernel refused.</returns>
    public bool SetOffloads(ulong features)
    {
        int flags = 0;
        foreach ((ulong guest, int tun) in Offloads)
        {
            flags |= (features & guest) != 0 ? tun : 0;
        }

        // The interface has one set for all its queues. The kernel refuses what makes no sense: anything unfinished without
        // checksums, ECN without TCP segments, UDP segments of one IP version only.
        const int Tso = Libc.TUN_F_TSO4 | Libc.TUN_F_TSO6;
        const int Uso = TunUso4 | TunUso6;
        flags &= (flags & Libc.TUN_F_CSUM) == 0 ? 0 : ~0;
        flags &= (flags & Tso) == 0 ? ~Libc.TUN_F_TSO_ECN : ~0;
        flags &= (flags & Uso) != Uso ? ~Uso : ~0;
        return Libc.ioctl(Queues[0].Value, Libc.TUNSETOFFLOAD, (nint)flags) == 0;
    }

    /// <summary>Has the kernel spread flows over the first <paramref name="count"/> queues only.</summary>
    /// <returns>False when the kernel refused.</returns>
    public bool UseQueues(int count)
    {
        bool ok = true;
        for (int i = 0; i < Queues.Count && Queues.Count > 1; i++)
        {
            bool attach = i < count;
            if (attach != _attached[i])
            {
                Libc.ifreq request = default;
                request.ifr_flags = (short)(attach ? Libc.IFF_ATTACH_QUEUE : Libc.IFF_DETACH_QUEUE);
                bool done = Libc.ioctl(Queues[i].Value, Libc.TUNSETQUEUE, &request) == 0;
                _attached[i] = done ? attach : _attached[i];
                ok &= done;
            }
        }

        return ok;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (SafeFd queue in Queues)
        {
            queue.Dispose();
        }
    }
}
