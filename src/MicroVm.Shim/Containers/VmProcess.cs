using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Pods;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.Runtime;
using MicroVm.Sandbox.Vm;
using MicroVm.Shim.Streams;
using MicroVm.Ttrpc;

namespace MicroVm.Shim.Containers;

/// <summary>A process in the guest, and its streams.</summary>
/// <param name="id">The process.</param>
/// <param name="ends">Where its streams go on the host; owned.</param>
/// <param name="timeout">How long the guest may take to connect them.</param>
internal sealed class VmProcess(ProcessId id, StdioEnds ends, TimeSpan timeout) : ITaskProcess, IContainerInit
{
    private const int SignalBase = 128;
    private GuestStdio? _stdio;
    private AgentClient? _agent;

    // A guest whose kernel code is emulated takes seconds for what else takes milliseconds.
    private static readonly TimeSpan QuietAfterExit = TimeSpan.FromSeconds(30);

    // A process that goes on in the background may hold its streams open, and its readers may have gone.
    private static readonly TimeSpan QuietBeforeExit = TimeSpan.FromMilliseconds(500);
    private static readonly TimeSpan BlockedBeforeExit = TimeSpan.FromSeconds(2);

    private AgentClient Agent => _agent ?? throw new SandboxException(RuntimeTexts.NotRunning);

    private GuestStdio Stdio => _stdio ?? throw new InvalidOperationException("the streams are not connected");

    /// <inheritdoc/>
    public StdioPorts Connect(string vsockPath, Process process) => (_stdio = GuestStdio.Connect(vsockPath, ends, process.Terminal, timeout)).Ports;

    /// <inheritdoc/>
    public void Begin(AgentClient agent)
    {
        _agent = agent;
        Stdio.Start();
    }

    /// <inheritdoc/>
    public void FollowTerminal()
    {
        // containerd tells the size (ResizePty).
    }

    /// <inheritdoc/>
    public TaskEnd Wait()
    {
        try
        {
            WaitProcessResponse end = Agent.WaitProcess(id);
            ExitStatus exit = ProcessEnd.Of(end);
            return new TaskEnd((uint)(exit.Signal != 0 ? SignalBase + exit.Signal : exit.Status), end.OomKilled, Lost: false);
        }
        catch (Exception e) when (e is SandboxException or TtrpcException or LinuxException or ObjectDisposedException)
        {
            // The VM has ended, or its agent tells what no process does.
            return TaskEnd.WithVm;
        }
    }

    /// <inheritdoc/>
    public void Signal(int signal)
    {
        TimeSpan patience = signal == Libc.SIGKILL ? GuestPatience.Kill : GuestPatience.Call;
        _ = SignalRefusal.Call(() => Agent.SignalProcess(
            new SignalProcessRequest { ContainerId = id.ContainerId, ExecId = id.ExecId, Signal = (uint)signal }, patience));
    }

    /// <inheritdoc/>
    public void Resize(uint width, uint height) => _ = SignalRefusal.Call(() => Agent.TtyWinResize(
        new TtyWinResizeRequest { ContainerId = id.ContainerId, ExecId = id.ExecId, Width = width, Height = height }, GuestPatience.Call));

    /// <inheritdoc/>
    public void CloseInput() => Stdio.CloseInput();

    /// <inheritdoc/>
    public void Settle() => _ = Stdio.Settle(QuietBeforeExit, BlockedBeforeExit);

    /// <inheritdoc/>
    public bool Drain(TimeSpan patience)
    {
        // A reader that does not read holds the copying up for as long as it likes, and only itself.
        bool drained = false;
        Thread thread = new(() => drained = Stdio.Drain(patience), 256 << 10) { IsBackground = true, Name = "drain" };
        thread.Start();
        return thread.Join(patience) && drained;
    }

    /// <inheritdoc/>
    public void DrainAll() => _ = Stdio.Drain(QuietAfterExit);

    /// <inheritdoc/>
    public void Close()
    {
        _stdio?.Dispose();
        ends.Dispose();
    }
}
