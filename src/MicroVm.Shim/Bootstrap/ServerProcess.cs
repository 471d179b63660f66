using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.Streams;
using MicroVm.Shim.Containers;
using MicroVm.Shim.Events;
using MicroVm.Shim.Tasks;
using MicroVm.Ttrpc;

namespace MicroVm.Shim.Bootstrap;

/// <summary>The server: serves containerd until it is shut down, when no task is left.</summary>
internal static unsafe class ServerProcess
{
    /// <summary>Environment variable with the path of containerd's ttrpc socket, which takes events.</summary>
    internal const string EventsVariable = "TTRPC_ADDRESS";

    private const int ListenerFd = 3;
    private const string LogFifo = "log";

    /// <summary>Serves on the listener that it inherits.</summary>
    /// <exception cref="SandboxException">This process was not started by <c>start</c>.</exception>
    internal static int Run(ShimArguments arguments)
    {
        if (Libc.fcntl(ListenerFd, Libc.F_GETFD, 0) < 0)
        {
            throw new SandboxException("no action: containerd calls a shim by start, delete, -info or -v");
        }

        _ = Libc.fcntl(ListenerFd, Libc.F_SETFD, Libc.FD_CLOEXEC);
        using SafeFd listener = new(ListenerFd);
        OpenLog();
        HostStreams.Prepare();
        IgnoreSignals();
        GuestThread.Confine();
        using RuntimeLog log = RuntimeLog.Open(null, json: false, arguments.Debug);
        return MainThread.Run(main => Serve(arguments, listener, main, log));
    }

    private static int Serve(ShimArguments arguments, SafeFd listener, MainThread main, RuntimeLog log)
    {
        using EventLoop loop = new();
        using EventPublisher events = new(Environment.GetEnvironmentVariable(EventsVariable), arguments.Namespace, text => log.Write(LogLevel.Warning, text));
        ShimSocket socket = ShimSocket.Of(arguments.Address, arguments.Namespace, arguments.Id);
        TaskHost host = new(arguments.Namespace, arguments.Debug, main, log);
        TaskTable tasks = new(host, events);
        TaskService service = new(tasks, loop, loop.Stop);
        using TtrpcServer server = new(loop, service.As(TaskService.Version2), service.As(TaskService.Version3));
        server.Listen(listener, UnixSocket.Accept);
        log.Write(LogLevel.Debug, $"serving {socket.Address}");
        loop.Run();

        // Whoever connects from now on finds nobody, rather than a server that does not answer.
        socket.Remove();
        events.Flush();
        return 0;
    }

    /// <summary>
    /// Standard error goes to the FIFO in the bundle that containerd reads, open for reading, too: it is not broken when containerd is
    /// restarted, and a full one loses lines rather than holding anything up.
    /// </summary>
    private static void OpenLog()
    {
        using SafeFd fifo = new(Libc.open(LogFifo, Libc.O_RDWR | Libc.O_NONBLOCK | Libc.O_CLOEXEC, 0));
        if (!fifo.IsInvalid)
        {
            _ = Libc.dup3(fifo.Value, 2, 0);
        }
    }

    // A shim outlives containerd and its unit; it is ended by Shutdown.
    private static void IgnoreSignals()
    {
        Libc.sigaction_t ignore = new() { sa_handler = (void*)1 };
        foreach (int signal in (int[])[Libc.SIGHUP, Libc.SIGINT, Libc.SIGTERM, Libc.SIGPIPE])
        {
            _ = Libc.sigaction(signal, &ignore, null);
        }
    }
}
