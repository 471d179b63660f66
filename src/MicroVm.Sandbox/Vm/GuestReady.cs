using System.Globalization;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;

namespace MicroVm.Sandbox.Vm;

/// <summary>The socket to which the agent's first connection comes.</summary>
internal sealed unsafe class GuestReady : IDisposable
{
    // The folder is the VMM's root, and its user has no right but these. Above it only our own user comes through.
    private const uint OwnFolder = 0b111_000_000;
    private const UnixFileMode FolderOfVmm = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute;
    internal const UnixFileMode SocketOfVmm = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.OtherRead | UnixFileMode.OtherWrite;
    private readonly SafeFd _listener;

    private GuestReady(SafeFd listener) => _listener = listener;

    /// <summary>Makes the folder of a VMM's sockets, through which the VMM's own user can go.</summary>
    /// <exception cref="LinuxException">The folder cannot be made.</exception>
    internal static void MakeFolder(string vsockPath)
    {
        string folder = Path.GetDirectoryName(vsockPath)!;
        HostFile.MakeFolder(folder, OwnFolder);
        File.SetUnixFileMode(folder, FolderOfVmm);
    }

    /// <summary>Listens beside the VMM's socket, before the VMM is started.</summary>
    /// <exception cref="SandboxException">The socket cannot be made.</exception>
    internal static GuestReady Listen(string vsockPath)
    {
        string path = string.Create(CultureInfo.InvariantCulture, $"{vsockPath}_{AgentClient.ReadyPort}");
        try
        {
            SafeFd listener = UnixSocket.Listen(path);
            File.SetUnixFileMode(path, SocketOfVmm);
            return new GuestReady(listener);
        }
        catch (LinuxException e)
        {
            throw new SandboxException(e.Message, e);
        }
    }

    /// <summary>Waits until the agent is ready.</summary>
    /// <exception cref="SandboxException">The VM ended first, or the time is up.</exception>
    internal void Wait(Vmm vmm, TimeSpan timeout)
    {
        Libc.pollfd* fds = stackalloc Libc.pollfd[2];
        fds[0] = new Libc.pollfd { fd = _listener.Value, events = Libc.POLLIN };
        fds[1] = new Libc.pollfd { fd = vmm.Process.Fd.Value, events = Libc.POLLIN };
        long deadline = Environment.TickCount64 + (long)timeout.TotalMilliseconds;
        while (true)
        {
            int ready = Libc.poll(fds, 2, (int)Math.Clamp(deadline - Environment.TickCount64, 0, int.MaxValue));
            if (ready == 0)
            {
                throw new SandboxException(vmm.Describe($"the agent was not ready within {timeout.TotalSeconds} s"));
            }

            if (ready > 0 && fds[1].revents != 0)
            {
                throw new SandboxException(vmm.Describe("the VM did not start"));
            }

            if (ready > 0 && fds[0].revents != 0)
            {
                using SafeFd? connection = UnixSocket.Accept(_listener);
                if (connection is not null)
                {
                    return;
                }
            }
        }
    }

    public void Dispose() => _listener.Dispose();
}
