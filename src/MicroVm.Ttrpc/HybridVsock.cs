using System.Globalization;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Ttrpc;

/// <summary>
/// The host's end of a VMM's hybrid vsock: a Unix socket on which a client names the guest's port with
/// <c>CONNECT port\n</c> and is answered <c>OK hostport\n</c>; then the stream is the guest's.
/// </summary>
public static unsafe class HybridVsock
{
    /// <summary>Connects to <paramref name="port"/> of the guest behind <paramref name="socketPath"/>.</summary>
    /// <param name="socketPath">The VMM's Unix socket.</param>
    /// <param name="port">vsock port in the guest.</param>
    /// <param name="timeout">How long to wait for the answer.</param>
    /// <param name="hostPort">The host's port of the new connection, which names it towards the agent.</param>
    /// <returns>The connected stream, blocking; owned by the caller.</returns>
    /// <exception cref="LinuxException">The VMM's socket does not exist or does not listen.</exception>
    /// <exception cref="TtrpcException">Unavailable: nobody listens on the port in the guest. DeadlineExceeded: no answer.</exception>
    public static SafeFd Connect(string socketPath, uint port, TimeSpan timeout, out uint hostPort)
    {
        long deadline = timeout == Timeout.InfiniteTimeSpan ? long.MaxValue : Environment.TickCount64 + (long)timeout.TotalMilliseconds;
        SafeFd fd = UnixSocket.Connect(socketPath);
        try
        {
            Span<byte> hello = Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"CONNECT {port}\n"));
            fixed (byte* p = hello)
            {
                if (Libc.send(fd.Value, p, (nuint)hello.Length, Libc.MSG_NOSIGNAL) != hello.Length)
                {
                    throw Closed(port);
                }
            }

            hostPort = ReadAnswer(fd, port, deadline);
            return fd;
        }
        catch
        {
            fd.Dispose();
            throw;
        }
    }

    private static uint ReadAnswer(SafeFd fd, uint port, long deadline)
    {
        // Byte by byte: what follows the newline is the stream's and must not be taken from it.
        Span<byte> line = stackalloc byte[32];
        for (int length = 0; length < line.Length;)
        {
            int left = deadline == long.MaxValue ? -1 : (int)Math.Clamp(deadline - Environment.TickCount64, 0, int.MaxValue);
            Libc.pollfd pfd = new() { fd = fd.Value, events = Libc.POLLIN };
            int ready = Libc.poll(&pfd, 1, left);
            if (ready == 0)
            {
                throw new TtrpcException(StatusCode.DeadlineExceeded, $"vsock: port {port} in the guest did not answer in time");
            }

            byte b = 0;
            nint n = ready < 0 ? -1 : Libc.recv(fd.Value, &b, 1, Libc.MSG_DONTWAIT);
            if (n == 0 || (n < 0 && Check.LastErrno is not (Errno.EINTR or Errno.EAGAIN)))
            {
                throw Closed(port);
            }

            if (n < 0)
            {
                continue;
            }

            if (b != '\n')
            {
                line[length++] = b;
                continue;
            }

            ReadOnlySpan<byte> answer = line[..length];
            if (answer.StartsWith("OK "u8)
                && uint.TryParse(answer[3..], NumberStyles.None, CultureInfo.InvariantCulture, out uint hostPort))
            {
                return hostPort;
            }

            break;
        }

        throw new TtrpcException(StatusCode.Unavailable, "vsock: the VMM answered something else than OK to CONNECT");
    }

    private static TtrpcException Closed(uint port) => new(StatusCode.Unavailable, $"vsock: nobody listens on port {port} in the guest");
}
