using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox;
using MicroVm.Sandbox.Runtime;
using MicroVm.Sandbox.StandIn;
using MicroVm.Sandbox.Vm;
using MicroVm.Shim.Streams;
using MicroVm.Ttrpc;

namespace MicroVm.Shim.Containers;

/// <summary>A process in the guest, by the agent's connection. Owns its streams.</summary>
internal sealed class VmProcess(AgentClient agent, ProcessId id, GuestStdio stdio) : ITaskProcess
{
    private const int SignalBase = 128;

    // A guest whose kernel code is emulated takes seconds for what else takes milliseconds.
    private static readonly TimeSpan QuietAfterExit = TimeSpan.FromSeconds(30);

    // A process that goes on in the background may hold its streams open, and its readers may have gone.
    private static readonly TimeSpan QuietBeforeExit = TimeSpan.FromMilliseconds(500);
    private static readonly TimeSpan BlockedBeforeExit = TimeSpan.FromSeconds(2);

    /// <inheritdoc/>
    public TaskEnd Wait()
    {
        try
        {
            WaitProcessResponse end = agent.WaitProcess(id);
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
        _ = Call(() => agent.SignalProcess(
            new SignalProcessRequest { ContainerId = id.ContainerId, ExecId = id.ExecId, Signal = (uint)signal }, patience));
    }

    /// <inheritdoc/>
    public void Resize(uint width, uint height) => _ = Call(() => agent.TtyWinResize(
        new TtyWinResizeRequest { ContainerId = id.ContainerId, ExecId = id.ExecId, Width = width, Height = height }, GuestPatience.Call));

    /// <inheritdoc/>
    public void CloseInput() => stdio.CloseInput();

    /// <inheritdoc/>
    public void Settle() => _ = stdio.Settle(QuietBeforeExit, BlockedBeforeExit);

    /// <inheritdoc/>
    public bool Drain(TimeSpan patience)
    {
        // A reader that does not read holds the copying up for as long as it likes, and only itself.
        bool drained = false;
        Thread thread = new(() => drained = stdio.Drain(patience), 256 << 10) { IsBackground = true, Name = "drain" };
        thread.Start();
        return thread.Join(patience) && drained;
    }

    /// <inheritdoc/>
    public void DrainAll() => _ = stdio.Drain(QuietAfterExit);

    /// <inheritdoc/>
    public void Close() => stdio.Dispose();

    private static T Call<T>(Func<T> call)
    {
        try
        {
            return call();
        }
        catch (Exception e) when (e is TtrpcException or LinuxException or ObjectDisposedException)
        {
            throw new SandboxException(e is TtrpcException { Code: not StatusCode.NotFound } ? e.Message : RuntimeTexts.NotRunning, e);
        }
    }
}
