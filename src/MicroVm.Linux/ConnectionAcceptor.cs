using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>accept4(2) for listeners of any family: connections that were given up meanwhile are passed over.</summary>
internal static unsafe class ConnectionAcceptor
{
    /// <summary>Takes a waiting connection, non-blocking and close-on-exec, without exceptions.</summary>
    /// <param name="listener">The listener.</param>
    /// <param name="address">Gets the peer's address, in the room that <paramref name="length"/> tells; null for none.</param>
    /// <param name="length">Room for the address, then its length; null for none.</param>
    /// <param name="errno">Why there is none: EAGAIN when none waits.</param>
    internal static SafeFd? TryAccept(SafeFd listener, void* address, uint* length, out Errno errno)
    {
        ArgumentNullException.ThrowIfNull(listener);
        int fd;
        do
        {
            fd = Libc.accept4(listener.Value, address, length, Libc.SOCK_CLOEXEC | Libc.SOCK_NONBLOCK);
        }
        while (fd < 0 && Check.LastErrno is (Errno.EINTR or Errno.ECONNABORTED));
        errno = fd < 0 ? Check.LastErrno : Errno.OK;
        return fd < 0 ? null : new SafeFd(fd);
    }

    /// <summary>The same; null only when no connection waits.</summary>
    /// <exception cref="LinuxException">The listener is broken, or no descriptor is free.</exception>
    internal static SafeFd? Accept(SafeFd listener, void* address, uint* length, string operation)
    {
        SafeFd? fd = TryAccept(listener, address, length, out Errno errno);
        return errno is Errno.OK or Errno.EAGAIN ? fd : throw new LinuxException(errno, operation);
    }
}
