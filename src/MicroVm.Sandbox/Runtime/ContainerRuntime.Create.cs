using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci;
using MicroVm.Sandbox.Pods;
using MicroVm.Sandbox.StandIn;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Streams;

namespace MicroVm.Sandbox.Runtime;

public sealed partial class ContainerRuntime
{
    private const int SignalBase = 128;

    /// <summary>Creates a container: its process is there on the host and in the guest, and waits for <see cref="Start"/>.</summary>
    public void Create(RunRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        using StandInProcess process = Launch(request, foreground: false);
        _ = Establish(process, request, new ProcessHandles(), out _);
    }

    /// <summary>Creates and starts a container, and waits for its end unless it is detached.</summary>
    /// <returns>The container's exit status (128 + signal when one ended it); 0 when detached.</returns>
    public int Run(RunRequest request)
    {
        ArgumentNullException.ThrowIfNull(request);
        if (!request.Detach)
        {
            return RunForeground(request);
        }

        using ReadinessRelay? readiness = ReadinessRelay.Open(_log);
        using StandInProcess process = Launch(request, foreground: false);
        ProcessHandles handles = new();
        ContainerState state = Establish(process, request, handles, out _);
        try
        {
            StartCreated(state);
        }
        catch (SandboxException)
        {
            handles.Withdraw();
            Destroy(state);
            throw;
        }

        readiness?.PassOn(_store.VsockOf(state), state.Id, state.Init.Pid);
        return 0;
    }

    private StandInProcess Launch(RunRequest request, bool foreground)
    {
        Prerequisites.Check();
        HostStreams.Prepare();
        string bundle = WorkingBundle(request.Bundle);
        if (!File.Exists(Path.Combine(bundle, SpecReader.FileName)))
        {
            throw new SpecException($"JSON specification file {SpecReader.FileName} not found");
        }

        byte[] configuration = SpecReader.ReadBundleBytes(bundle);
        ContainerId.Check(request.Id);
        StandInRequest standIn = Request(request.Id) with
        {
            Bundle = bundle,
            Configuration = configuration,
            Vm = Absolute(request.Vm),
            Foreground = foreground,
            Transient = foreground && !request.Keep,
            ConsoleSocket = request.ConsoleSocket is null ? null : Path.GetFullPath(request.ConsoleSocket),
        };
        Oci.Config.Spec spec = SpecReader.ParseBundle(configuration);
        StandInProcess process = SandboxFinder.Find(spec, _store) is { } target
            ? StandInProcess.Join(standIn, spec, target, _store.FolderOf(target.Member.Id), _log)
            : StandInProcess.Create(standIn, spec, _log);
        Done("the container's process is started");
        return process;
    }

    // The stand-in's working folder is another one.
    private static Vm.VmOptions Absolute(Vm.VmOptions options) => options with
    {
        Kernel = options.Kernel is null ? null : Path.GetFullPath(options.Kernel),
        Initramfs = options.Initramfs is null ? null : Path.GetFullPath(options.Initramfs),
        ConsoleLog = options.ConsoleLog is null ? null : Path.GetFullPath(options.ConsoleLog),
    };

    /// <summary>The command's part of a creation: hooks of the runtime's namespace, the pid file and the pidfd.</summary>
    private ContainerState Establish(StandInProcess process, RunRequest request, ProcessHandles handles, out bool hasTerminal)
    {
        ContainerState? state = null;
        try
        {
            StandInMessage created = process.Expect(StandInMessageKind.Created);
            (state, hasTerminal) = (created.State!, created.Terminal);
            process.CompleteView();
            OciState document = state.ToOci(ContainerStatus.Creating);
            HookRunner.Run("prestart", state.Hooks?.Prestart, document);
            HookRunner.Run("createRuntime", state.Hooks?.CreateRuntime, document);
            handles.Tell(process.Process, request.PidFile, request.PidfdSocket, ProcessHandles.OfInit);
            process.Proceed();
            _ = process.Expect(StandInMessageKind.Ready);
            return state with { Status = ContainerStatus.Created };
        }
        catch
        {
            process.Abandon();
            handles.Withdraw();
            Forget(request.Id, process, state ?? process.Failed);
            throw;
        }
    }

    /// <summary>
    /// What remains to be done for a creation that failed: a stand-in that was killed has left its state, and poststop hooks run
    /// for every container that was there (runtime.md, "Lifecycle").
    /// </summary>
    private void Forget(string id, StandInProcess process, ContainerState? state)
    {
        if (_store.Find(id) is { } left && left.Init.Pid == process.Process?.Pid && !left.Init.IsAlive())
        {
            Destroy(left);
        }
        else if (state is not null)
        {
            WarnOnly(() => HookRunner.Run("poststop", state.Hooks?.Poststop, state.ToOci(ContainerStatus.Stopped)));
        }
    }

    private int RunForeground(RunRequest request)
    {
        StandInProcess? process = null;
        using SignalRelay signals = new(() => process?.Interrupt());
        ContainerState? state = null;
        try
        {
            process = Launch(request, foreground: true);
            using StandInProcess owned = process;
            state = Establish(process, request, new ProcessHandles(), out bool hasTerminal);
            using Terminal? terminal = hasTerminal ? RawTerminal() : null;
            using ReadinessRelay? readiness = ReadinessRelay.Open(_log);
            StartCreated(state);
            PassOnBeside(readiness, state);
            return Attend(process, signals, terminal);
        }
        catch (SandboxException e) when (signals.AbortedBy != 0)
        {
            _log.Write(LogLevel.Debug, $"ended by signal {signals.AbortedBy} before the container was started: {e.Message}");
            return SignalBase + signals.AbortedBy;
        }
        finally
        {
            if (state is not null && !request.Keep)
            {
                Destroy(state);
            }
        }
    }

    /// <summary>The command itself waits for the container's end; the process to watch is its own.</summary>
    private void PassOnBeside(ReadinessRelay? readiness, ContainerState state)
    {
        if (readiness is null)
        {
            return;
        }

        string vsock = _store.VsockOf(state);
        new Thread(() => WarnOnly(() => readiness.PassOn(vsock, state.Id, null)), 256 << 10) { IsBackground = true, Name = "readiness" }.Start();
    }

    /// <summary>Hands signals on until the stand-in ends; the result is an exit status as shells have it.</summary>
    private static int Attend(StandInProcess process, SignalRelay signals, Terminal? terminal)
    {
        HandOn(process, signals, terminal);
        return Await(process);
    }

    private static void HandOn(StandInProcess process, SignalRelay signals, Terminal? terminal) => signals.Start(signal =>
    {
        if (signal == Libc.SIGCONT)
        {
            terminal?.MakeRaw();
        }

        process.Process.Signal(signal);
    });

    private static int Await(StandInProcess process)
    {
        (ExitStatus exit, string? failure) = process.WaitForEnd();
        return failure is not null ? throw new SandboxException(failure)
            : exit.Signal != 0 ? SignalBase + exit.Signal
            : exit.Status;
    }

    private static Terminal RawTerminal() => new(CallerTerminal.Find() ?? throw CallerTerminal.Missing);
}
