using System.Globalization;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.Runtime;

/// <summary>Hands a caller a process on the host: its id in a file, and a pidfd on a socket. Undone when the creation fails.</summary>
internal sealed class ProcessHandles
{
    /// <summary>What runc sends along with the pidfd of a container's init.</summary>
    internal const string OfInit = "standard";

    /// <summary>What runc sends along with the pidfd of another process.</summary>
    internal const string OfExec = "setns";

    private string? _written;

    /// <summary>Writes the file and sends the pidfd, as far as they are asked for.</summary>
    /// <exception cref="SandboxException">The file cannot be written, or nobody listens.</exception>
    internal void Tell(SpawnedProcess process, string? pidFile, string? pidfdSocket, string kind)
    {
        if (pidfdSocket is not null)
        {
            Send(process.Fd, pidfdSocket, kind);
        }

        if (pidFile is not null)
        {
            Write(Path.GetFullPath(pidFile), process.Pid);
        }
    }

    /// <summary>Takes the file away: there is no process.</summary>
    internal void Withdraw()
    {
        if (_written is not null)
        {
            _ = Libc.unlink(_written);
        }
    }

    private void Write(string path, int pid)
    {
        try
        {
            HostFile.Replace(path, Encoding.ASCII.GetBytes(pid.ToString(CultureInfo.InvariantCulture)), 0b110_100_100);
            _written = path;
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"{e.Operation} {Path.Combine(Path.GetDirectoryName(path)!, "." + Path.GetFileName(path))}: {e.Reason}", e);
        }
    }

    private static void Send(SafeFd pidfd, string socketPath, string kind)
    {
        try
        {
            using SafeFd socket = UnixSocket.Connect(socketPath);
            FdSender.Send(socket, Encoding.ASCII.GetBytes(kind), [pidfd]);
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"the pidfd cannot be sent to {socketPath}: {e.Reason}", e);
        }
    }
}
