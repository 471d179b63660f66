using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci;
using MicroVm.Oci.Config;

namespace MicroVm.Sandbox.HostNetwork;

/// <summary>
/// The container's network namespace on the host: callers put its interfaces there. A process is in the namespace of its
/// first thread (<c>/proc/PID/ns/net</c>), so that thread is the one to enter it.
/// </summary>
internal static unsafe class NetworkNamespace
{
    private const string Loopback = "lo";

    /// <summary>Enters the configuration's namespace: the one at its path, a new one, or none when it asks for none.</summary>
    /// <exception cref="SandboxException">There is no namespace at the path, or none can be made.</exception>
    internal static void Enter(Oci.Config.Linux? linux)
    {
        if (linux?.Namespaces?.FirstOrDefault(n => n.Type == NamespaceTypes.Network) is not { } network)
        {
            return;
        }

        if (string.IsNullOrEmpty(network.Path))
        {
            if (Libc.unshare(Libc.CLONE_NEWNET) < 0)
            {
                throw new SandboxException($"a network namespace cannot be made: {LinuxException.Text(Check.LastErrno)}");
            }

            BringUpLoopback();
            return;
        }

        Join(network.Path);
    }

    /// <summary>Enters the namespace at a path.</summary>
    /// <exception cref="SandboxException">There is none.</exception>
    internal static void Join(string path)
    {
        int fd = Libc.open(path, Libc.O_RDONLY | Libc.O_CLOEXEC, 0);
        if (fd < 0)
        {
            throw new SandboxException($"network namespace {path}: {LinuxException.Text(Check.LastErrno).ToLowerInvariant()}");
        }

        using SafeFd owned = new(fd);
        if (Libc.setns(fd, Libc.CLONE_NEWNET) < 0)
        {
            throw new SandboxException($"network namespace {path} cannot be entered: {LinuxException.Text(Check.LastErrno).ToLowerInvariant()}");
        }
    }

    // As runc does in a namespace that it makes.
    private static void BringUpLoopback()
    {
        const int NameSize = 16, RequestSize = 40;
        using SafeFd socket = SafeFd.From(Libc.socket(Libc.AF_INET, Libc.SOCK_DGRAM | Libc.SOCK_CLOEXEC, 0), "socket(AF_INET)");
        byte* request = stackalloc byte[RequestSize];
        new Span<byte>(request, RequestSize).Clear();
        System.Text.Encoding.ASCII.GetBytes(Loopback, new Span<byte>(request, NameSize));
        short* flags = (short*)(request + NameSize);
        if (Libc.ioctl(socket.Value, Libc.SIOCGIFFLAGS, request) == 0)
        {
            *flags |= Libc.IFF_UP;
            _ = Libc.ioctl(socket.Value, Libc.SIOCSIFFLAGS, request);
        }
    }
}
