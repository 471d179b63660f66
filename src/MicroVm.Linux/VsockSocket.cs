using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>vsock stream sockets (vsock(7)) as a guest uses them; every descriptor is close-on-exec, non-blocking and owned by the caller.</summary>
public static unsafe class VsockSocket
{
    /// <summary>Listens on <paramref name="port"/> for connections from any context.</summary>
    /// <exception cref="LinuxException">There is no vsock device (EAFNOSUPPORT, ENODEV), or the port is taken.</exception>
    public static SafeFd Listen(uint port)
    {
        SafeFd fd = Create();
        try
        {
            Libc.sockaddr_vm address = new() { svm_family = Libc.AF_VSOCK, svm_cid = Libc.VMADDR_CID_ANY, svm_port = port };
            Check.Result(Libc.bind(fd.Value, &address, (uint)sizeof(Libc.sockaddr_vm)), "bind(AF_VSOCK)");
            Check.Result(Libc.listen(fd.Value, 128), "listen(AF_VSOCK)");
            return fd;
        }
        catch
        {
            fd.Dispose();
            throw;
        }
    }

    /// <summary>Takes a waiting connection; null when there is none.</summary>
    /// <param name="listener">A socket of <see cref="Listen"/>.</param>
    /// <param name="peerPort">The port at the other end.</param>
    /// <exception cref="LinuxException">The listener is broken, or no descriptor is free.</exception>
    public static SafeFd? Accept(SafeFd listener, out uint peerPort)
    {
        Libc.sockaddr_vm address = default;
        uint length = (uint)sizeof(Libc.sockaddr_vm);
        SafeFd? fd = ConnectionAcceptor.Accept(listener, &address, &length, "accept4(AF_VSOCK)");
        peerPort = address.svm_port;
        return fd;
    }

    /// <summary>Starts to connect to <paramref name="port"/> of context <paramref name="cid"/> and does not wait.</summary>
    /// <exception cref="LinuxException">There is no vsock device.</exception>
    public static SafeFd StartConnect(uint cid, uint port)
    {
        SafeFd fd = Create();
        Libc.sockaddr_vm address = new() { svm_family = Libc.AF_VSOCK, svm_cid = cid, svm_port = port };
        int result = Libc.connect(fd.Value, &address, (uint)sizeof(Libc.sockaddr_vm));
        if (result < 0 && Check.LastErrno is not (Errno.EINPROGRESS or Errno.ECONNREFUSED or Errno.ECONNRESET))
        {
            LinuxException failure = new(Check.LastErrno, "connect(AF_VSOCK)");
            fd.Dispose();
            throw failure;
        }

        return fd;
    }

    private static SafeFd Create() => SafeFd.From(
        Libc.socket(Libc.AF_VSOCK, Libc.SOCK_STREAM | Libc.SOCK_CLOEXEC | Libc.SOCK_NONBLOCK, 0), "socket(AF_VSOCK)");
}
