using System.Globalization;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Netlink;
using MicroVm.Oci;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Plan;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Streams;
using MicroVm.Sandbox.Vm;
using MicroVm.Ttrpc;

namespace MicroVm.Sandbox.Proxies;

/// <summary>The host process that stands for one more process in a container: lives as long, ends as it does.</summary>
internal sealed class ExecProxy : IDisposable
{
    private const int SignalBase = 128;
    private readonly ProxyRequest _request;
    private readonly ProxyCaller _caller;
    private readonly ContainerStore _store;
    private readonly string _execId = Guid.NewGuid().ToString("N");
    private readonly SignalRelay _signals;
    private readonly GuestProcess _process;
    private readonly ProcessFiles _files = ProcessFiles.Open(Environment.ProcessId, first: false);
    private readonly TaskCompletionSource _ended = new();
    private AgentClient? _agent;
    private string? _record;

    internal ExecProxy(ProxyRequest request, ProxyCaller caller)
    {
        _request = request;
        _caller = caller;
        _store = new ContainerStore(request.Root);
        _process = new GuestProcess(request, _execId, ProcessStreams.OfThisProcess(request.HasTerminalFd ? new SafeFd(ProxyHandshake.TerminalFd) : null), caller.Log);

        // Until the process is there, a signal ends just this attempt.
        _signals = new SignalRelay(() => Libc._exit(1));
    }

    /// <summary>Starts the process and waits for its end; null when there is none: the caller was told why.</summary>
    internal ExitStatus? Run()
    {
        try
        {
            if (!Start())
            {
                return null;
            }
        }
        catch (Exception e) when (e is SandboxException or SpecException or TtrpcException or LinuxException)
        {
            _caller.Fail(e.Message);
            return null;
        }

        return WaitForEnd();
    }

    public void Dispose()
    {
        if (_record is not null)
        {
            ExecRecords.Remove(_record);
        }

        _files.Remove();
        _files.Dispose();
        _process.Dispose();
        _agent?.Dispose();
        _signals.Dispose();
    }

    private bool Start()
    {
        string folder = _store.FolderOf(_request.Id);
        List<string> warnings = [];
        Oci.Config.Spec spec = SpecReader.ParseBundle(_request.Configuration);
        ExecProcessRequest exec = new()
        {
            ContainerId = _request.Id,
            ExecId = _execId,
            Process = ProcessPlan.Build(_request.Process!, spec.Linux ?? new Oci.Config.Linux(), warnings),

            // Whether a paused container may be executed in was decided by the command.
            IgnorePaused = true,
            Cgroup = _request.Cgroup ?? "",
        };
        CallerLimits.Add(exec.Process);
        ContainerState state = _store.Get(_request.Id);
        string vsock = _store.VsockOf(state);
        HomeDirectory.Add(exec.Process, state.Rootfs);
        warnings.ForEach(w => _caller.Log(LogLevel.Warning, w));
        new HostCgroup(state.Cgroups ?? []).Join();

        // This is the first thread, whose namespace /proc/PID/ns/net shows: callers find the container's network there.
        NetworkNamespace.Join(string.Create(CultureInfo.InvariantCulture, $"/proc/{state.Init.Pid}/ns/net"));
        _record = ExecRecords.Add(folder);
        _agent = AgentClient.Connect(vsock, GuestPatience.Call, GuestPatience.Call);
        _caller.Log(LogLevel.Debug, "connected to the agent");
        exec.Stdio = _process.Connect(vsock, exec.Process);
        _caller.Log(LogLevel.Debug, "the streams are connected");
        _agent.ExecProcess(exec, GuestPatience.Exec);
        _caller.Log(LogLevel.Debug, "the guest has started the process");
        _process.Attach(_agent);
        _signals.Start(signal => _process.Deliver(signal));
        Show(state.Init.Pid);
        bool told = _caller.Send(new ProxyMessage { Kind = ProxyMessageKind.Created });
        Confinement.ForExec();
        if (!told || !_caller.WaitForProceed())
        {
            _ = _process.Deliver(Libc.SIGKILL);
            return false;
        }

        // A terminal in the foreground has been made raw by now.
        _process.StartStreams();

        // The terminal's new owner may have set its size before.
        _process.FollowTerminal();
        _caller.Send(new ProxyMessage { Kind = ProxyMessageKind.Ready });
        if (_request.Foreground)
        {
            _caller.Watch(EndWithCaller);
        }
        else
        {
            _caller.Release();
        }

        return true;
    }

    /// <summary>A foreground process ends with its caller; when the guest does not end it, at least its process on the host does.</summary>
    private void EndWithCaller()
    {
        if (!_process.Deliver(Libc.SIGKILL) || !_ended.Task.Wait(GuestPatience.Death))
        {
            Libc._exit(SignalBase + Libc.SIGKILL);
        }
    }

    /// <summary>For callers that list processes; without it the process runs all the same.</summary>
    private void Show(int init)
    {
        try
        {
            _files.AddTo(init);
        }
        catch (LinuxException e)
        {
            _caller.Log(LogLevel.Debug, $"the process is not listed in the container's /proc: {e.Message}");
        }
    }

    private ExitStatus WaitForEnd()
    {
        ExitStatus exit;
        try
        {
            WaitProcessResponse end = _agent!.WaitProcess(new ProcessId { ContainerId = _request.Id, ExecId = _execId });
            _ended.SetResult();
            exit = ProcessEnd.Of(end);
        }
        catch (SandboxException e)
        {
            _caller.Fail(e.Message);
            return new ExitStatus(0, Libc.SIGKILL);
        }
        catch (Exception e) when (e is TtrpcException or LinuxException)
        {
            // The container has ended, or its VM, and took this process with it.
            _process.DrainAfterLoss();
            _caller.Log(LogLevel.Debug, $"the container ended: {e.Message}");
            return new ExitStatus(0, Libc.SIGKILL);
        }

        _process.Drain();
        return exit;
    }
}
