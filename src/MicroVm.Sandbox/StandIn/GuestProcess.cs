using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Streams;
using MicroVm.Sandbox.Vm;
using MicroVm.Ttrpc;
using Process = MicroVm.Protocol.Agent.Process;

namespace MicroVm.Sandbox.StandIn;

/// <summary>What a stand-in does for its process in the guest: streams, terminal size, signals.</summary>
internal sealed unsafe class GuestProcess : IDisposable
{
    // A guest whose kernel code is emulated takes seconds for what else takes milliseconds.
    private static readonly TimeSpan QuietAfterExit = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan QuietAfterLoss = TimeSpan.FromSeconds(1);
    private readonly StandInRequest _request;
    private readonly string _execId;
    private readonly StandInCaller _caller;
    private HostConsole? _console;
    private ContainerStreams? _streams;
    private SafeFd? _terminal;
    private AgentClient? _agent;

    internal GuestProcess(StandInRequest request, string execId, StandInCaller caller)
    {
        _request = request;
        _execId = execId;
        _caller = caller;
    }

    /// <summary>Connects the streams: for a terminal the console's, or the caller's own terminal in the foreground.</summary>
    /// <exception cref="SandboxException">The console socket does not work.</exception>
    /// <exception cref="TtrpcException">The agent does not take streams.</exception>
    internal StdioPorts Connect(string vsockPath, Process process)
    {
        (SafeFd Input, SafeFd Output, SafeFd Error) host = (HostStreams.Input, HostStreams.Output, HostStreams.Error);
        if (process.Terminal && _request.ConsoleSocket is { } socket)
        {
            _console = HostConsole.Create(socket, (int)process.ConsoleWidth, (int)process.ConsoleHeight);
            _console.TakeControl();
            host = (_console.Slave, _console.Slave, _console.Slave);
            HostStreams.Drop();
        }

        if (process.Terminal)
        {
            _terminal = _console?.Slave ?? (Terminal.Is(HostStreams.Input) ? HostStreams.Input : HostStreams.Output);
            (int width, int height) = Size();
            if (width > 0 && height > 0)
            {
                (process.ConsoleWidth, process.ConsoleHeight) = ((uint)width, (uint)height);
            }
        }

        _streams = ContainerStreams.Connect(vsockPath, process.Terminal, host, _request.Vm?.StartTimeout ?? GuestPatience.Call);
        return _streams.Ports;
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
                if (_terminal is not null && Size() is ( > 0, > 0) size)
                {
                    _agent!.TtyWinResize(
                        new TtyWinResizeRequest { ContainerId = _request.Id, ExecId = _execId, Width = (uint)size.Width, Height = (uint)size.Height },
                        GuestPatience.Call);
                }

                return true;
            }

            TimeSpan patience = signal == Libc.SIGKILL ? GuestPatience.Kill : GuestPatience.Call;
            _agent!.SignalProcess(new SignalProcessRequest { ContainerId = _request.Id, ExecId = _execId, Signal = (uint)signal }, patience);
            return true;
        }
        catch (Exception e) when (e is TtrpcException or ObjectDisposedException)
        {
            // The process has ended, or the VM: who waits for it says so.
            _caller.Log(LogLevel.Debug, $"signal {signal} was not delivered: {e.Message}");
            return false;
        }
    }

    /// <summary>Copies the rest of the output once the process has ended.</summary>
    internal void Drain()
    {
        if (!_streams!.Drain(QuietAfterExit))
        {
            _caller.Log(LogLevel.Warning, "the container's output streams were not ended by the guest; the last of the output may be missing");
        }
    }

    /// <summary>Copies what the VMM had handed over before it ended: it is still the container's output.</summary>
    internal void DrainAfterLoss() => _ = _streams?.Drain(QuietAfterLoss);

    public void Dispose()
    {
        _streams?.Dispose();
        _console?.Dispose();
    }

    private (int Width, int Height) Size()
    {
        Libc.winsize size = default;
        _ = Libc.ioctl(_terminal!.Value, Libc.TIOCGWINSZ, &size);
        return (size.ws_col, size.ws_row);
    }
}
