using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Pods;
using MicroVm.Sandbox.Streams;
using MicroVm.Sandbox.Vm;
using MicroVm.Ttrpc;
using Process = MicroVm.Protocol.Agent.Process;

namespace MicroVm.Sandbox.Proxies;

/// <summary>What a proxy process does for its process in the guest: streams, terminal size, signals.</summary>
internal sealed unsafe class GuestProcess : IContainerInit, IDisposable
{
    // A guest whose kernel code is emulated takes seconds for what else takes milliseconds.
    private static readonly TimeSpan QuietAfterExit = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan QuietAfterLoss = TimeSpan.FromSeconds(1);
    private readonly ProxyRequest _request;
    private readonly string _execId;
    private readonly Action<LogLevel, string> _log;
    private readonly Action<SafeFd>? _takeControl;
    private readonly ProcessStreams _host;
    private readonly Lock _following = new();
    private HostConsole? _console;
    private ContainerStreams? _streams;
    private SafeFd? _terminal;
    private (int Width, int Height) _size;
    private bool _plainNewlines;
    private bool _hungUp;
    private AgentClient? _agent;

    /// <summary>For a process that is about to be made.</summary>
    /// <param name="request">Its container, and its console socket.</param>
    /// <param name="execId">Empty for the container's init.</param>
    /// <param name="host">Its streams on the host; owned.</param>
    /// <param name="log">Takes what goes wrong.</param>
    /// <param name="takeControl">Makes a console the controlling terminal of who hands its changes of size on; null: of this process.</param>
    internal GuestProcess(ProxyRequest request, string execId, ProcessStreams host, Action<LogLevel, string> log, Action<SafeFd>? takeControl = null)
    {
        _request = request;
        _execId = execId;
        _host = host;
        _log = log;
        _takeControl = takeControl;
    }

    /// <summary>Connects the streams: for a terminal the console's, or the caller's own terminal in the foreground.</summary>
    /// <exception cref="SandboxException">The console socket does not work.</exception>
    /// <exception cref="TtrpcException">The agent does not take streams.</exception>
    public StdioPorts Connect(string vsockPath, Process process)
    {
        (SafeFd Input, SafeFd Output, SafeFd Error) host = (_host.Input, _host.Output, _host.Error);
        if (process.Terminal && _request.ConsoleSocket is { } socket)
        {
            _console = HostConsole.Create(socket, (int)process.ConsoleWidth, (int)process.ConsoleHeight);
            if (_takeControl is null)
            {
                _console.TakeControl();
            }
            else
            {
                _takeControl(_console.Slave);
            }

            host = (_console.Slave, _console.Slave, _console.Slave);
            _host.Drop();
        }

        if (process.Terminal)
        {
            _terminal = _console?.Slave ?? _host.Terminal ?? throw CallerTerminal.Missing;
            (int width, int height) = Size();
            if (width > 0 && height > 0)
            {
                (process.ConsoleWidth, process.ConsoleHeight) = ((uint)width, (uint)height);
            }

            // As runc: in the foreground the caller's terminal makes \r\n of \n, and what is no terminal gets \n.
            process.PlainNewlines = _plainNewlines = _console?.PlainNewlines ?? true;
            _size = ((int)process.ConsoleWidth, (int)process.ConsoleHeight);
        }

        _streams = ContainerStreams.Connect(vsockPath, process.Terminal, host, _request.Vm?.StartTimeout ?? GuestPatience.Call);
        return _streams.Ports;
    }

    /// <inheritdoc/>
    public void Begin(AgentClient agent)
    {
        Attach(agent);
        StartStreams();
    }

    /// <summary>From now on there is a process to which signals go.</summary>
    internal void Attach(AgentClient agent) => _agent = agent;

    /// <summary>Starts the copying of streams.</summary>
    internal void StartStreams() => _streams!.Start();

    /// <summary>Hands a signal to the process. A guest that does not answer in time does not hold the signals that follow.</summary>
    /// <returns>False when the guest did not take it.</returns>
    internal bool Deliver(int signal)
    {
        try
        {
            if (signal == Libc.SIGWINCH)
            {
                FollowTerminal();
                return true;
            }

            if (signal == Libc.SIGHUP && !_hungUp && _console?.IsHungUp == true)
            {
                // The guest's kernel signals the session, and ends what reads.
                _hungUp = true;
                _agent!.TtyHangUp(new ProcessId { ContainerId = _request.Id, ExecId = _execId }, GuestPatience.Call);
                return true;
            }

            TimeSpan patience = signal == Libc.SIGKILL ? GuestPatience.Kill : GuestPatience.Call;
            _agent!.SignalProcess(new SignalProcessRequest { ContainerId = _request.Id, ExecId = _execId, Signal = (uint)signal }, patience);
            return true;
        }
        catch (Exception e) when (e is TtrpcException or ObjectDisposedException)
        {
            // The process has ended, or the VM: who waits for it says so.
            _log(LogLevel.Debug, $"signal {signal} was not delivered: {e.Message}");
            return false;
        }
    }

    /// <summary>Tells the guest what has changed of the terminal on the host: its size, and ONLCR of a caller's console.</summary>
    public void FollowTerminal()
    {
        if (_terminal is null)
        {
            return;
        }

        lock (_following)
        {
            (int Width, int Height) size = Size();
            bool plain = _console is { IsHungUp: false } ? _console.PlainNewlines : _plainNewlines;
            if (size == _size && plain == _plainNewlines)
            {
                return;
            }

            TtyWinResizeRequest request = new() { ContainerId = _request.Id, ExecId = _execId, Width = (uint)size.Width, Height = (uint)size.Height };
            if (plain != _plainNewlines)
            {
                request.PlainNewlines = plain;
            }

            (_size, _plainNewlines) = (size, plain);
            try
            {
                _agent!.TtyWinResize(request, GuestPatience.Call);
            }
            catch (Exception e) when (e is TtrpcException or ObjectDisposedException)
            {
                _log(LogLevel.Debug, $"the terminal's size was not passed on: {e.Message}");
            }
        }
    }

    /// <summary>Copies the rest of the output once the process has ended.</summary>
    internal void Drain()
    {
        if (!_streams!.Drain(QuietAfterExit))
        {
            _log(LogLevel.Warning, "the container's output streams were not ended by the guest; the last of the output may be missing");
        }
    }

    /// <summary>Copies what the VMM had handed over before it ended: it is still the container's output.</summary>
    internal void DrainAfterLoss() => _ = _streams?.Drain(QuietAfterLoss);

    public void Dispose()
    {
        _streams?.Dispose();
        _console?.Dispose();
        _host.Dispose();
    }

    private (int Width, int Height) Size()
    {
        Libc.winsize size = default;
        return Libc.ioctl(_terminal!.Value, Libc.TIOCGWINSZ, &size) < 0 ? _size : (size.ws_col, size.ws_row);
    }
}
