using MicroVm.Linux;
using MicroVm.Linux.Tracing;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Streams;

namespace MicroVm.Sandbox.Runtime;

/// <summary>Creates and starts containers, and waits for the end of those in the foreground.</summary>
internal sealed class RunVerb(RuntimeContext runtime, CreateVerb creation, StartVerb start, DeleteVerb deletion)
{
    /// <summary>Creates and starts a container, and waits for its end unless it is detached.</summary>
    /// <returns>The container's exit status (128 + signal when one ended it); 0 when detached.</returns>
    internal int Run(RunRequest request)
    {
        if (request.Trace is not null)
        {
            runtime.TraceInto(request.Trace);
        }

        if (!request.Detach)
        {
            return RunForeground(request);
        }

        using ReadinessRelay? readiness = ReadinessRelay.Open(runtime.Log);
        using ProxyClient process = creation.Launch(request, foreground: false);
        ProcessHandles handles = new();
        ContainerState state = creation.Establish(process, request, handles, out _);
        try
        {
            start.StartCreated(state);
        }
        catch (SandboxException)
        {
            handles.Withdraw();
            deletion.Destroy(state);
            throw;
        }

        runtime.MakeMissingTemplate(process);
        readiness?.PassOn(runtime.Store.VsockOf(state), state.Id, state.Init.Pid);
        if (runtime.Trace.Steps.IsOn)
        {
            runtime.WarnOnly(() => runtime.Trace.Add(runtime.Ask(state.Id, new ControlCall { Verb = ControlVerb.Trace }).Tracks));
            WriteTrace();
        }

        return 0;
    }

    private void WriteTrace() => runtime.Trace.Write(text => runtime.Log.Write(LogLevel.Warning, text));

    private int RunForeground(RunRequest request)
    {
        ProxyClient? process = null;
        using SignalRelay signals = new(() => process?.Interrupt());
        ContainerState? state = null;
        try
        {
            process = creation.Launch(request, foreground: true);
            using ProxyClient owned = process;
            state = creation.Establish(process, request, new ProcessHandles(), out bool hasTerminal);
            using Terminal? terminal = hasTerminal ? ForegroundProcess.RawTerminal() : null;
            using ReadinessRelay? readiness = ReadinessRelay.Open(runtime.Log);
            start.StartCreated(state);
            PassOnBeside(readiness, state);
            runtime.MakeMissingTemplate(process);
            ForegroundProcess.HandOn(process, signals, terminal);
            using StepScope step = runtime.Trace.Steps.Begin("await the end");
            return ForegroundProcess.Await(process);
        }
        catch (SandboxException e) when (signals.AbortedBy != 0)
        {
            runtime.Log.Write(LogLevel.Debug, $"ended by signal {signals.AbortedBy} before the container was started: {e.Message}");
            return ForegroundProcess.SignalBase + signals.AbortedBy;
        }
        finally
        {
            if (state is not null && !request.Keep)
            {
                using StepScope step = runtime.Trace.Steps.Begin("delete the container");
                deletion.Destroy(state);
            }

            runtime.Trace.Add(process?.Tracks);
            WriteTrace();
        }
    }

    /// <summary>The command itself waits for the container's end; the process to watch is its own.</summary>
    private void PassOnBeside(ReadinessRelay? readiness, ContainerState state)
    {
        if (readiness is null)
        {
            return;
        }

        string vsock = runtime.Store.VsockOf(state);
        new Thread(() => runtime.WarnOnly(() => readiness.PassOn(vsock, state.Id, null)), 256 << 10) { IsBackground = true, Name = "readiness" }.Start();
    }
}
