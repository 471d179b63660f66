using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>Sends bytes and descriptors beside them (SCM_RIGHTS, unix(7)).</summary>
public static unsafe class FdSender
{
    private const int MaxFds = 16;

    /// <summary>Sends all of <paramref name="bytes"/>; the descriptors, which stay the caller's, go with the first of them.</summary>
    /// <exception cref="LinuxException">The other side is gone.</exception>
    public static void Send(SafeFd socket, ReadOnlySpan<byte> bytes, IReadOnlyList<SafeFd> fds)
    {
        ArgumentNullException.ThrowIfNull(socket);
        ArgumentNullException.ThrowIfNull(fds);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(fds.Count, MaxFds);
        byte* control = stackalloc byte[sizeof(Libc.cmsghdr) + (MaxFds * sizeof(int))];
        Libc.cmsghdr* header = (Libc.cmsghdr*)control;
        header->cmsg_len = (nuint)(sizeof(Libc.cmsghdr) + (fds.Count * sizeof(int)));
        header->cmsg_level = Libc.SOL_SOCKET;
        header->cmsg_type = Libc.SCM_RIGHTS;
        for (int i = 0; i < fds.Count; i++)
        {
            ((int*)(header + 1))[i] = fds[i].Value;
        }

        // CMSG_SPACE: the length, rounded up to a word.
        nuint space = (header->cmsg_len + 7) & ~(nuint)7;
        fixed (byte* p = bytes)
        {
            int sent = 0;
            while (sent < bytes.Length)
            {
                bool first = sent == 0 && fds.Count > 0;
                Libc.iovec vector = new() { iov_base = p + sent, iov_len = (nuint)(bytes.Length - sent) };
                Libc.msghdr message = new()
                {
                    msg_iov = &vector,
                    msg_iovlen = 1,
                    msg_control = first ? control : null,
                    msg_controllen = first ? space : 0,
                };
                nint n = Libc.sendmsg(socket.Value, &message, Libc.MSG_NOSIGNAL);
                if (!Check.Retry(n))
                {
                    sent += (int)Check.Result(n, "sendmsg");
                }
            }
        }
    }
}
