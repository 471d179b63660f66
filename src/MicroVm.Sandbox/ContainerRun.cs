using System.Globalization;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.Plan;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Streams;
using MicroVm.Sandbox.Vm;
using MicroVm.Ttrpc;
using ContainerId = MicroVm.Oci.ContainerId;

namespace MicroVm.Sandbox;

/// <summary>
/// One container in the foreground: this process is the one that stands for it. It starts the VM, copies streams, hands
/// on signals, and returns the container's exit status. Whatever happens, nothing of it is left afterwards.
/// </summary>
public sealed class ContainerRun : IDisposable
{
    private const int SignalBase = 128;

    // A guest whose kernel code is emulated takes seconds for what else takes milliseconds.
    private static readonly TimeSpan QuietAfterExit = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan QuietAfterLoss = TimeSpan.FromSeconds(1);
    private static readonly TimeSpan SignalTimeout = TimeSpan.FromSeconds(60);

    private readonly RunRequest _request;
    private readonly RuntimeLog _log;
    private readonly ContainerStore _store;
    private readonly SignalRelay _signals;
    private readonly Lock _vmLock = new();
    private Vmm? _vmm;
    private Guest? _guest;
    private ContainerStreams? _streams;
    private Terminal? _terminal;
    private bool _started;
    private bool _disposed;

    private ContainerRun(RunRequest request, RuntimeLog log)
    {
        _request = request;
        _log = log;
        _store = new ContainerStore(request.Root);
        _signals = new SignalRelay(Abort);
    }

    /// <summary>Runs a container to its end.</summary>
    /// <returns>The container's exit status (128 + signal when one ended it), or of a signal that came before it started.</returns>
    /// <exception cref="SpecException">The bundle is malformed or asks for what is not supported.</exception>
    /// <exception cref="SandboxException">The container could not be started or kept running.</exception>
    public static int Run(RunRequest request, RuntimeLog log)
    {
        ArgumentNullException.ThrowIfNull(request);
        Prerequisites.Check();
        HostStreams.Prepare();
        string bundle = Path.GetFullPath(request.Bundle);
        if (!Directory.Exists(bundle))
        {
            throw new SandboxException($"bundle {bundle}: no such directory");
        }

        ContainerId.Check(request.Id);
        Spec spec = SpecReader.ReadBundle(bundle);
        string rootfs = SpecValidator.Validate(spec, bundle);
        HookRunner.Check(spec.Hooks);
        bool terminal = spec.Process!.Terminal ?? false;
        if (terminal && !(Terminal.Is(HostStreams.Input) || Terminal.Is(HostStreams.Output)))
        {
            throw new SandboxException("cannot allocate tty: process.terminal is true in config.json, but neither standard input nor standard output is a terminal");
        }

        using ContainerRun run = new(request, log);
        return run.Run(spec, bundle, rootfs, terminal);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        _terminal?.Dispose();
        _streams?.Dispose();
        _guest?.Dispose();
        lock (_vmLock)
        {
            _vmm?.Dispose();
            _vmm = null;
        }

        _signals.Dispose();
    }

    private int Run(Spec spec, string bundle, string rootfs, bool terminal)
    {
        List<string> warnings = [];
        VmShape shape = VmShape.Resolve(spec, _request.Vm, Host.MemoryMiB, Environment.ProcessorCount);
        RuntimeFiles files = RuntimeFiles.Locate(_request.Vm.Kernel, _request.Vm.Initramfs);
        using ContainerPlan plan = PlanBuilder.Build(spec, _request.Id, bundle, rootfs, warnings);
        warnings.ForEach(w => _log.Write(LogLevel.Warning, w));

        ContainerState state = new()
        {
            OciVersion = spec.OciVersion!,
            Id = _request.Id,
            Bundle = bundle,
            Rootfs = rootfs,
            Created = DateTimeOffset.UtcNow,
            Owner = Libc.getuid(),
            Init = ProcessIdentity.Current,
            Status = ContainerStatus.Creating,
            Annotations = spec.Annotations,
        };
        _store.Create(state);
        try
        {
            return Run(spec, state, plan, files, shape, terminal);
        }
        catch (Exception e) when (_signals.AbortedBy != 0 && e is SandboxException or TtrpcException or LinuxException)
        {
            _log.Write(LogLevel.Debug, $"ended by signal {_signals.AbortedBy} before the container was started");
            return SignalBase + _signals.AbortedBy;
        }
        finally
        {
            Dispose();
            _store.Delete(_request.Id);
            if (_request.PidFile is not null && !_started)
            {
                File.Delete(_request.PidFile);
            }

            RunPoststop(spec, state);
        }
    }

    private int Run(Spec spec, ContainerState state, ContainerPlan plan, RuntimeFiles files, VmShape shape, bool terminal)
    {
        string vmFolder = Path.Combine(_store.FolderOf(_request.Id), "vm");
        HostFile.MakeFolder(vmFolder, 0b111_000_000);
        string vsock = Path.Combine(vmFolder, "vsock");
        using GuestReady ready = GuestReady.Listen(vsock);
        Vmm vmm = Vmm.Start(files, shape, vsock, plan.Exports, _request.Vm.ConsoleLog);
        lock (_vmLock)
        {
            _vmm = vmm;
        }

        if (_signals.AbortedBy != 0)
        {
            throw new SandboxException("interrupted");
        }

        _log.Write(LogLevel.Debug, $"started microvm-vmm {vmm.Process.Pid}: {shape.MemoryMiB} MiB, {shape.Vcpus} vCPUs");
        state = state with { Vmm = ProcessIdentity.Of(vmm.Process.Pid) };
        _store.Update(state);
        ready.Wait(vmm);
        _guest = Guest.Connect(vmm, vsock);
        _log.Write(LogLevel.Debug, "the agent is ready");

        CreateContainerRequest create = new() { ContainerId = _request.Id, Spec = plan.Spec };
        _guest.Call("create container", _ => _streams = ContainerStreams.Connect(vsock, terminal));
        create.Stdio = _streams!.Ports;
        if (terminal)
        {
            StartTerminal(create.Spec.Process);
        }

        _guest.Call("create container", agent => agent.CreateContainer(create));
        state = state with { Status = ContainerStatus.Created };
        _store.Update(state);
        HookRunner.Run("prestart", spec.Hooks?.Prestart, Oci(state));
        HookRunner.Run("createRuntime", spec.Hooks?.CreateRuntime, Oci(state));
        if (_request.PidFile is not null)
        {
            WritePidFile(_request.PidFile);
        }

        _streams.Start();
        _guest.Call("start container", agent => agent.StartContainer(_request.Id));
        _started = true;
        state = state with { Status = ContainerStatus.Running };
        _store.Update(state);
        _signals.Start(Deliver);
        RunPoststart(spec, state);
        return WaitForEnd();
    }

    private int WaitForEnd()
    {
        WaitProcessResponse end;
        try
        {
            end = _guest!.WaitProcess(_request.Id);
        }
        catch (SandboxException)
        {
            // What the VMM had handed over before it ended is still the container's output.
            _ = _streams!.Drain(QuietAfterLoss);
            throw;
        }

        if (!_streams!.Drain(QuietAfterExit))
        {
            _log.Write(LogLevel.Warning, "the container's output streams were left open in the guest; the last of the output may be missing");
        }

        _terminal?.Dispose();
        if (end.OomKilled)
        {
            _log.Write(LogLevel.Warning, $"container {_request.Id} was killed: out of memory (linux.resources.memory.limit, or the VM's memory)");
        }

        return end.Signal != 0 ? SignalBase + (int)end.Signal : end.ExitStatus & 0xff;
    }

    private void StartTerminal(MicroVm.Protocol.Agent.Process process)
    {
        _terminal = new Terminal(Terminal.Is(HostStreams.Input) ? HostStreams.Input : HostStreams.Output);
        (int width, int height) = _terminal.Size;
        if (width > 0 && height > 0)
        {
            process.ConsoleWidth = (uint)width;
            process.ConsoleHeight = (uint)height;
        }
    }

    private void Deliver(int signal)
    {
        try
        {
            if (signal == Libc.SIGWINCH)
            {
                Resize();
                return;
            }

            if (signal == Libc.SIGCONT)
            {
                _terminal?.MakeRaw();
            }

            _guest?.Agent.SignalProcess(new SignalProcessRequest { ContainerId = _request.Id, Signal = (uint)signal }, SignalTimeout);
        }
        catch (Exception e) when (e is TtrpcException or ObjectDisposedException)
        {
            // The process has ended, or the VM: who waits for it says so.
            _log.Write(LogLevel.Debug, $"signal {signal} was not delivered: {e.Message}");
        }
    }

    private void Resize()
    {
        if (_terminal?.Size is (> 0, > 0) size)
        {
            _guest?.Agent.TtyWinResize(
                new TtyWinResizeRequest { ContainerId = _request.Id, Width = (uint)size.Width, Height = (uint)size.Height }, SignalTimeout);
        }
    }

    /// <summary>A signal before the container runs: without its VM, whatever is being waited for fails at once.</summary>
    private void Abort()
    {
        lock (_vmLock)
        {
            _vmm?.Process.Signal(Libc.SIGKILL);
        }
    }

    private void RunPoststart(Spec spec, ContainerState state) => WarnOnly(() => HookRunner.Run("poststart", spec.Hooks?.Poststart, Oci(state)));

    private void RunPoststop(Spec spec, ContainerState state) =>
        WarnOnly(() => HookRunner.Run("poststop", spec.Hooks?.Poststop, Oci(state with { Status = ContainerStatus.Stopped })));

    private void WarnOnly(Action hooks)
    {
        try
        {
            hooks();
        }
        catch (SandboxException e)
        {
            _log.Write(LogLevel.Warning, e.Message);
        }
    }

    private static OciState Oci(ContainerState state) => new()
    {
        OciVersion = state.OciVersion,
        Id = state.Id,
        Status = state.Status,
        Pid = state.Status == ContainerStatus.Stopped ? 0 : state.Init.Pid,
        Bundle = state.Bundle,
        Annotations = state.Annotations,
    };

    private static void WritePidFile(string path)
    {
        try
        {
            HostFile.Replace(Path.GetFullPath(path), Encoding.ASCII.GetBytes(Environment.ProcessId.ToString(CultureInfo.InvariantCulture)), 0b110_100_100);
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"the pid file cannot be written: {e.Message}", e);
        }
    }
}
