using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci;

namespace MicroVm.Sandbox.Proxies;

/// <summary>A proxy process's side of its control socket: a thread for each connection, since calls into the guest may take long.</summary>
internal sealed unsafe class ContainerControlServer : IDisposable
{
    private const int StackSize = 256 << 10, JoinStackSize = 1 << 20;
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan LastCalls = TimeSpan.FromSeconds(10);
    private readonly SafeFd _listener;
    private readonly Func<ControlCall, ControlReply> _answer;
    private readonly Action<LineChannel, int>? _join;
    private readonly object _lock = new();
    private int _underWay;

    private ContainerControlServer(SafeFd listener, Func<ControlCall, ControlReply> answer, Action<LineChannel, int>? join)
    {
        _listener = listener;
        _answer = answer;
        _join = join;
    }

    /// <summary>Serves from now on.</summary>
    /// <param name="folder">The container's.</param>
    /// <param name="answer">Does what is asked.</param>
    /// <param name="join">Takes a connection that wants to join, and how many descriptors it will send; null refuses it.</param>
    /// <exception cref="LinuxException">The socket cannot be made.</exception>
    internal static ContainerControlServer Start(string folder, Func<ControlCall, ControlReply> answer, Action<LineChannel, int>? join = null)
    {
        ContainerControlServer server = new(UnixSocket.Listen(Path.Combine(folder, ControlClient.SocketName)), answer, join);
        new Thread(server.Run, StackSize) { IsBackground = true, Name = "control" }.Start();
        return server;
    }

    /// <summary>
    /// Takes no more calls, and waits for those that are under way: whoever started a container that has ended already is to hear
    /// that it was started.
    /// </summary>
    internal void Finish()
    {
        Dispose();
        long deadline = Environment.TickCount64 + (long)LastCalls.TotalMilliseconds;
        lock (_lock)
        {
            while (_underWay > 0 && deadline - Environment.TickCount64 is var left and > 0)
            {
                Monitor.Wait(_lock, (int)left);
            }
        }
    }

    // The thread ends with the process.
    public void Dispose() => _ = Libc.shutdown(_listener.Value, Libc.SHUT_RDWR);

    private void Run()
    {
        Libc.pollfd pfd = new() { fd = _listener.Value, events = Libc.POLLIN };
        while (true)
        {
            int ready = Libc.poll(&pfd, 1, -1);
            if (ready > 0 && (pfd.revents & Libc.POLLHUP) != 0)
            {
                return;
            }

            if (ready > 0 && UnixSocket.TryAccept(_listener, out _) is { } connection)
            {
                try
                {
                    new Thread(() => Serve(connection), StackSize) { IsBackground = true, Name = "control call" }.Start();
                }
                catch (OutOfMemoryException)
                {
                    // The cgroup has as many threads as it may: calls wait for one another, and a kill is still heard.
                    Serve(connection);
                }
            }
        }
    }

    private void Serve(SafeFd connection)
    {
        using LineChannel channel = new(connection);
        if (channel.Receive<ControlCall>(Patience) is not { } call)
        {
            return;
        }

        if (call is { Verb: ControlVerb.Join, Version: ControlCall.CurrentVersion } && _join is not null)
        {
            // For as long as the container lives: not under way, and on a stack of its own.
            if (channel.Send(new ControlReply()))
            {
                LineChannel taken = new(channel.Release());
                try
                {
                    new Thread(() => _join(taken, (int)Math.Clamp(call.Known ?? 0, 0, int.MaxValue)), JoinStackSize) { IsBackground = true, Name = "container" }.Start();
                }
                catch (OutOfMemoryException)
                {
                    // The command sees its connection end.
                    taken.Dispose();
                }
            }

            return;
        }

        lock (_lock)
        {
            _underWay++;
        }

        ControlReply reply;
        try
        {
            reply = call.Version == ControlCall.CurrentVersion ? _answer(call) : throw new SandboxException(
                $"the container's process speaks version {ControlCall.CurrentVersion} of the control protocol, this command version {call.Version}: use the microvm that created the container");
        }
        catch (Exception e) when (e is SandboxException or SpecException or IOException)
        {
            reply = new ControlReply { Error = e.Message };
        }

        _ = channel.Send(reply);
        lock (_lock)
        {
            _underWay--;
            Monitor.PulseAll(_lock);
        }
    }
}
