using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Containers;

/// <summary>The loopback interface.</summary>
public static unsafe class Loopback
{
    private static int s_up;

    /// <summary>Brings "lo" of the VM's own network namespace up, the first time.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static void UpOnce()
    {
        if (Interlocked.Exchange(ref s_up, 1) == 0)
        {
            Up();
        }
    }

    /// <summary>Brings "lo" of the calling thread's network namespace up.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static void Up()
    {
        using SafeFd socket = SafeFd.From(Libc.socket(Libc.AF_UNIX, Libc.SOCK_DGRAM | Libc.SOCK_CLOEXEC, 0), "socket");
        // struct ifreq: a name of 16 bytes, then here the flags; 40 bytes.
        byte* request = stackalloc byte[40];
        new Span<byte>(request, 40).Clear();
        "lo"u8.CopyTo(new Span<byte>(request, 16));
        *(short*)(request + 16) = Libc.IFF_UP;
        Check.Result(Libc.ioctl(socket.Value, Libc.SIOCSIFFLAGS, request), "ioctl(SIOCSIFFLAGS)", "lo");
    }
}
