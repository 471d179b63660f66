using System.Globalization;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Plan;
using MicroVm.Sandbox.Vm;
using MicroVm.Ttrpc;

namespace MicroVm.Sandbox.Runtime;

/// <summary>
/// Tells who started a command, systemd as a rule, that the container is ready (sd_notify(3)): the container's notice goes to the socket that
/// NOTIFY_SOCKET names, and the container's process on the host as the one to watch, as runc does. Owns its socket.
/// </summary>
internal sealed unsafe class ReadinessRelay : IDisposable
{
    private const int MaxLine = 4096, BarrierMilliseconds = 30_000;
    private readonly SafeFd _manager;
    private readonly RuntimeLog _log;

    private ReadinessRelay(SafeFd manager, RuntimeLog log)
    {
        _manager = manager;
        _log = log;
    }

    /// <summary>For the socket that the environment names; null where it names none.</summary>
    /// <exception cref="SandboxException">Nobody has such a socket.</exception>
    internal static ReadinessRelay? Open(RuntimeLog log)
    {
        if (ReadinessSocket.OfCaller is not { } path)
        {
            return null;
        }

        try
        {
            return new ReadinessRelay(UnixDatagram.Connect(path), log);
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"the socket that NOTIFY_SOCKET names cannot be used: {e.Message}", e);
        }
    }

    /// <summary>Waits for the container's notice, or its end, and passes the notice on.</summary>
    /// <param name="vsockPath">The VM's socket.</param>
    /// <param name="id">The container's id.</param>
    /// <param name="pid">The process to watch; null: the command itself stays.</param>
    /// <exception cref="SandboxException">The guest says something else, or the caller's socket takes no more.</exception>
    internal void PassOn(string vsockPath, string id, int? pid)
    {
        ReadOnlySpan<byte> line;
        try
        {
            using AgentClient agent = AgentClient.Connect(vsockPath, GuestPatience.Call);
            line = agent.AwaitReadiness(new ReadinessRequest { ContainerId = id }).Line.Span;
        }
        catch (TtrpcException e) when (e.Code == StatusCode.NotFound)
        {
            _log.Write(LogLevel.Warning, $"NOTIFY_SOCKET was not set when the container was created: its readiness is not waited for ({e.Message})");
            return;
        }
        catch (Exception e) when (e is TtrpcException or LinuxException)
        {
            // The container has ended.
            return;
        }

        if (!line.StartsWith("READY="u8) || line.Length > MaxLine || line.ContainsAnyInRange((byte)0, (byte)31))
        {
            throw new SandboxException("the guest's notice of readiness is none");
        }

        try
        {
            Send([.. line, (byte)'\n']);
            if (pid is not null)
            {
                Send(Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"MAINPID={pid}\n")));
            }

            AwaitBarrier();
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"the notice of readiness cannot be passed on: {e.Message}", e);
        }
        catch (ObjectDisposedException)
        {
            // A command in the foreground has ended meanwhile.
        }
    }

    public void Dispose() => _manager.Dispose();

    private void Send(byte[] datagram) => FdSender.Send(_manager, datagram, []);

    /// <summary>sd_notify_barrier(3): the manager closes the descriptor once it has read what came before.</summary>
    private void AwaitBarrier()
    {
        (SafeFd read, SafeFd write) = Pipe.Create();
        using SafeFd ours = read;
        using (write)
        {
            FdSender.Send(_manager, "BARRIER=1"u8, [write]);
        }

        Libc.pollfd poll = new() { fd = ours.Value };
        _ = Libc.poll(&poll, 1, BarrierMilliseconds);
    }
}
