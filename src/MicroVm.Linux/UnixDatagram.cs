using System.Text;
using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>Unix datagram sockets (unix(7)); every descriptor is close-on-exec and owned by the caller.</summary>
public static unsafe class UnixDatagram
{
    /// <summary>Binds a socket, non-blocking, at <paramref name="path"/>, which does not exist.</summary>
    /// <exception cref="LinuxException">The path exists or cannot be made, or its name is too long (ENAMETOOLONG).</exception>
    public static SafeFd Bind(string path) => Open(path, Libc.SOCK_NONBLOCK, connect: false);

    /// <summary>A socket that sends to the one at <paramref name="path"/>; "@name" is one without a file.</summary>
    /// <exception cref="LinuxException">There is none, or its name is too long (ENAMETOOLONG).</exception>
    public static SafeFd Connect(string path) => Open(path, 0, connect: true);

    /// <summary>Takes a datagram off a non-blocking socket; what <paramref name="buffer"/> does not hold is lost.</summary>
    /// <returns>Its length; null when none waits.</returns>
    public static int? Receive(SafeFd socket, Span<byte> buffer)
    {
        ArgumentNullException.ThrowIfNull(socket);
        fixed (byte* p = buffer)
        {
            nint n;
            do
            {
                n = Libc.recv(socket.Value, p, (nuint)buffer.Length, Libc.MSG_DONTWAIT);
            }
            while (Check.Retry(n));
            return n < 0 ? null : (int)n;
        }
    }

    private static SafeFd Open(string path, int flags, bool connect)
    {
        ArgumentNullException.ThrowIfNull(path);
        string operation = connect ? "connect" : "bind";
        int size = Encoding.UTF8.GetByteCount(path);
        if (size is 0 or > UnixSocket.MaxPathBytes)
        {
            throw new LinuxException(Errno.ENAMETOOLONG, operation, path);
        }

        Libc.sockaddr_un address = default;
        address.sun_family = Libc.AF_UNIX;
        _ = Encoding.UTF8.GetBytes(path, new Span<byte>(address.sun_path, UnixSocket.MaxPathBytes));
        bool hasFile = path[0] != '@';
        if (!hasFile)
        {
            address.sun_path[0] = 0;
        }

        uint length = (uint)(sizeof(ushort) + size + (hasFile ? 1 : 0));
        SafeFd fd = SafeFd.From(Libc.socket(Libc.AF_UNIX, Libc.SOCK_DGRAM | Libc.SOCK_CLOEXEC | flags, 0), "socket(AF_UNIX)");
        int result = connect ? Libc.connect(fd.Value, &address, length) : Libc.bind(fd.Value, &address, length);
        if (result < 0)
        {
            Errno errno = Check.LastErrno;
            fd.Dispose();
            throw new LinuxException(errno, operation, path);
        }

        return fd;
    }
}
