using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.HostNetwork;

/// <summary>
/// The container's network namespace on the host: callers put its interfaces there. A process is in the namespace of its
/// first thread (<c>/proc/PID/ns/net</c>), so that thread is the one to enter it.
/// </summary>
internal static class NetworkNamespace
{
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
}
