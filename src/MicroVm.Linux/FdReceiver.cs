using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>Receives bytes and the descriptors that travel beside them (SCM_RIGHTS, unix(7)).</summary>
public static unsafe class FdReceiver
{
    private const int MaxFds = 16;

    // Headers and data are padded to the size of a word (CMSG_SPACE).
    private static readonly int ControlSize = sizeof(Libc.cmsghdr) + (MaxFds * sizeof(int));

    /// <summary>Receives once, without waiting.</summary>
    /// <param name="socket">A Unix stream socket.</param>
    /// <param name="buffer">Where the bytes go.</param>
    /// <param name="fds">Gets the descriptors, close-on-exec, in the order they were sent; owned by the caller.</param>
    /// <param name="errno">Why nothing came: EAGAIN when nothing waits.</param>
    /// <returns>The number of bytes; 0 at the end of the stream; -1 for an error.</returns>
    public static int Receive(SafeFd socket, Span<byte> buffer, List<SafeFd> fds, out Errno errno)
    {
        ArgumentNullException.ThrowIfNull(socket);
        ArgumentNullException.ThrowIfNull(fds);
        byte* control = stackalloc byte[ControlSize];
        nint n;
        Libc.msghdr message;
        fixed (byte* p = buffer)
        {
            Libc.iovec vector = new() { iov_base = p, iov_len = (nuint)buffer.Length };
            do
            {
                message = new Libc.msghdr
                {
                    msg_iov = &vector,
                    msg_iovlen = 1,
                    msg_control = control,
                    msg_controllen = (nuint)ControlSize,
                };
                n = Libc.recvmsg(socket.Value, &message, Libc.MSG_DONTWAIT | Libc.MSG_CMSG_CLOEXEC);
            }
            while (Check.Retry(n));
        }

        errno = n < 0 ? Check.LastErrno : Errno.OK;
        if (n >= 0)
        {
            Collect(control, (int)Math.Min(message.msg_controllen, (nuint)ControlSize), fds);
        }

        return (int)n;
    }

    private static void Collect(byte* control, int length, List<SafeFd> fds)
    {
        int at = 0;
        while (length - at >= sizeof(Libc.cmsghdr))
        {
            Libc.cmsghdr* header = (Libc.cmsghdr*)(control + at);
            int size = (int)Math.Min(header->cmsg_len, (nuint)(length - at));
            if (size < sizeof(Libc.cmsghdr))
            {
                return;
            }

            if (header->cmsg_level == Libc.SOL_SOCKET && header->cmsg_type == Libc.SCM_RIGHTS)
            {
                int* data = (int*)(header + 1);
                for (int i = 0; i < (size - sizeof(Libc.cmsghdr)) / sizeof(int); i++)
                {
                    fds.Add(new SafeFd(data[i]));
                }
            }

            at += (size + sizeof(nuint) - 1) & ~(sizeof(nuint) - 1);
        }
    }
}
