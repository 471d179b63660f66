using System.Buffers.Binary;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Service;

/// <summary>Connects the host to TCP ports of the guest's localhost. Loop thread only.</summary>
internal sealed unsafe class LocalPorts(EventLoop loop)
{
    // The host's side has a bound of its own.
    private const int MaxConnections = 1024;
    private const uint Localhost = 0x0100007f;
    private readonly SocketBridges _bridges = new(loop, MaxConnections);

    /// <summary>Connects a stream to a port; takes the stream over.</summary>
    /// <param name="stream">The stream, non-blocking.</param>
    /// <param name="port">The port.</param>
    /// <param name="six">Of ::1, not of 127.0.0.1.</param>
    /// <returns>0, also when the connection is still on its way: then the stream ends if it fails. ECONNREFUSED when nobody listens.</returns>
    internal Errno Connect(SafeFd stream, ushort port, bool six)
    {
        SafeFd? socket = null;
        Errno errno = Errno.EAGAIN;
        if (_bridges.IsFull || (socket = TryConnect(port, six, out errno)) is null)
        {
            stream.Dispose();
            return errno;
        }

        return _bridges.Join(stream, socket);
    }

    private static SafeFd? TryConnect(ushort port, bool six, out Errno errno)
    {
        SafeFd socket = new(Libc.socket(six ? Libc.AF_INET6 : Libc.AF_INET, Libc.SOCK_STREAM | Libc.SOCK_CLOEXEC | Libc.SOCK_NONBLOCK, 0));
        errno = Errno.OK;
        if (socket.IsInvalid || (Begin(socket, BinaryPrimitives.ReverseEndianness(port), six) < 0 && Check.LastErrno != Errno.EINPROGRESS))
        {
            errno = Check.LastErrno;
            socket.Dispose();
            return null;
        }

        int yes = 1;
        _ = Libc.setsockopt(socket.Value, Libc.IPPROTO_TCP, Libc.TCP_NODELAY, &yes, sizeof(int));

        // On the loopback interface a refusal is there already.
        int error = 0;
        uint size = sizeof(int);
        if (Libc.getsockopt(socket.Value, Libc.SOL_SOCKET, Libc.SO_ERROR, &error, &size) == 0 && error != 0)
        {
            errno = (Errno)error;
            socket.Dispose();
            return null;
        }

        return socket;
    }

    private static int Begin(SafeFd socket, ushort port, bool six)
    {
        if (six)
        {
            Libc.sockaddr_in6 to = new() { sin6_family = Libc.AF_INET6, sin6_port = port };
            to.sin6_addr[15] = 1;
            return Libc.connect(socket.Value, &to, (uint)sizeof(Libc.sockaddr_in6));
        }

        Libc.sockaddr_in local = new() { sin_family = Libc.AF_INET, sin_port = port, sin_addr = Localhost };
        return Libc.connect(socket.Value, &local, (uint)sizeof(Libc.sockaddr_in));
    }
}
