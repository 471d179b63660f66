using System.Runtime.InteropServices;
using System.Text;
using MicroVm.Linux.Native;

namespace MicroVm.Linux.Netlink;

/// <summary>Makes tap interfaces (Documentation/networking/tuntap.rst).</summary>
public static unsafe class TapInterface
{
    /// <summary>
    /// Makes a tap in the calling thread's network namespace, for a virtio-net device: frames with a header, nothing before
    /// it. It is gone when the last of its descriptors is closed. One that is there already is not joined.
    /// </summary>
    /// <param name="name">Name, where "%d" stands for the next free number; at most 15 bytes.</param>
    /// <param name="queues">Number of queues.</param>
    /// <returns>Its name, and a descriptor for each queue.</returns>
    /// <exception cref="LinuxException">/dev/net/tun is missing, the name is taken...</exception>
    public static (string Name, SafeFd[] Queues) Create(string name, int queues)
    {
        ArgumentNullException.ThrowIfNull(name);
        if (Encoding.UTF8.GetByteCount(name) is 0 or >= Libc.IFNAMSIZ)
        {
            throw new LinuxException(Errno.ENAMETOOLONG, "tap interface", name);
        }

        SafeFd[] fds = new SafeFd[queues];
        Libc.ifreq request = default;
        Encoding.UTF8.GetBytes(name, new Span<byte>(request.ifr_name, Libc.IFNAMSIZ));
        try
        {
            for (int i = 0; i < queues; i++)
            {
                fds[i] = SafeFd.From(Libc.open("/dev/net/tun", Libc.O_RDWR | Libc.O_CLOEXEC | Libc.O_NONBLOCK, 0), "open", "/dev/net/tun");
                request.ifr_flags = unchecked((short)(Libc.IFF_TAP | Libc.IFF_NO_PI | Libc.IFF_VNET_HDR
                    | (queues > 1 ? Libc.IFF_MULTI_QUEUE : 0) | (i == 0 ? Libc.IFF_TUN_EXCL : 0)));
                Check.Result(Libc.ioctl(fds[i].Value, Libc.TUNSETIFF, &request), "ioctl(TUNSETIFF)", name);
            }

            return (Marshal.PtrToStringUTF8((nint)request.ifr_name)!, fds);
        }
        catch
        {
            Array.ForEach(fds, f => f?.Dispose());
            throw;
        }
    }
}
