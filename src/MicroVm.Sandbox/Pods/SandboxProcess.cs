using System.Globalization;
using MicroVm.Linux;
using MicroVm.Linux.Tracing;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Proxies;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Streams;
using MicroVm.Sandbox.Vm;
using MicroVm.Ttrpc;

namespace MicroVm.Sandbox.Pods;

/// <summary>
/// The executable as the process that owns a VM: started by the command that creates its first container, it takes further ones, and
/// ends with the last. The VMM is its child and ends with it, and so do the proxies.
/// </summary>
internal sealed class SandboxProcess : IDisposable
{
    private readonly ProxyRequest _request;
    private readonly ProxyCaller _caller;
    private readonly ContainerStore _store;
    private readonly ContainerHost _first;
    private readonly SignalRelay _signals;
    private readonly string _vmFolder;
    private readonly object _lock = new();
    private PodSandbox? _sandbox;
    private HostCgroup? _before;
    private int _joining;
    private bool _interrupted;
    private bool _ended;

    internal SandboxProcess(ProxyRequest request, ProxyCaller caller, SafeFd proxy)
    {
        ProcessIdentity own = ProcessIdentity.Current;
        _request = request;
        _caller = caller;
        _store = new ContainerStore(request.Root);
        _vmFolder = string.Create(CultureInfo.InvariantCulture, $"{own.Pid}-{own.StartTime}");
        _first = new ContainerHost(request, caller, new ProxyLink(proxy), ProcessStreams.OfThisProcess(request.HasTerminalFd ? new SafeFd(ProxyHandshake.TerminalFd) : null), Join);
        _signals = new SignalRelay(Interrupt);
    }

    /// <summary>Creates the first container, serves commands, and waits until the last has ended.</summary>
    /// <returns>Whether the first was created; else the caller was told why not.</returns>
    internal bool Run()
    {
        string? failure;
        try
        {
            failure = Create() ? null : "";
        }
        catch (Exception e) when (e is SandboxException or SpecException or TtrpcException or LinuxException)
        {
            failure = e.Message;
        }

        if (failure is not null)
        {
            // A cgroup can be removed only from outside of it, and a failure is reported once nothing is left.
            _first.Stop();
            End(leaveCgroup: true);
            _first.Fail(failure.Length > 0 ? failure : null, End);
            return false;
        }

        _first.WaitForEnd(End);
        _caller.Release();
        lock (_lock)
        {
            while (!_ended || _joining > 0)
            {
                Monitor.Wait(_lock);
            }
        }

        return true;
    }

    public void Dispose()
    {
        End(leaveCgroup: false);
        _first.Dispose();
        _signals.Dispose();
    }

    private bool Create()
    {
        _caller.Log(LogLevel.Debug, "the sandbox process runs");
        StepRecorder trace = _caller.Trace;
        using StepScope all = trace.Begin("create the container");
        string bundle = _request.Bundle!;
        Spec spec = SpecReader.ParseBundle(_request.Configuration);
        string rootfs = SpecValidator.Validate(spec, bundle);
        HookRunner.Check(spec.Hooks);
        TerminalRules.Check(_request, spec.Process!.Terminal ?? false);
        using SandboxBoot boot = new(spec, _request.Id, bundle, rootfs, _request.Vm!, _request.SystemdCgroup, _caller.Log, trace);
        HostCgroup cgroup = boot.First.Cgroup;
        _before = boot.First.Before;

        // Made by the command meanwhile.
        ProcessIdentity proxy;
        using (trace.Begin("await the proxy"))
        {
            proxy = _caller.WaitForProxy();
        }

        PodSandbox sandbox = boot.Prepare(_store, _vmFolder, string.Create(CultureInfo.InvariantCulture, $"/proc/{proxy.Pid}/ns/net"), c => c.Join());
        lock (_lock)
        {
            _sandbox = sandbox;
        }

        using (trace.Begin("take the id, make the cgroup"))
        {
            _first.TakeId(boot.State(proxy) with { Transient = _request.Transient }, _store, cgroup, proxy);
        }

        Vmm vmm = boot.Start();
        if (boot.MissingTemplate is { } missing)
        {
            // Made by a process of the caller: this one is about to enter the container's cgroup.
            _ = _caller.Send(new ProxyMessage { Kind = ProxyMessageKind.NoTemplate, Template = missing });
        }

        if (_interrupted)
        {
            throw new SandboxException("interrupted");
        }

        // What needs no guest is done while it boots.
        using (trace.Begin("move to the cgroup, keep the configuration"))
        {
            vmm.ReadConsole();
            cgroup.Join();
            cgroup.Move(proxy.Pid);
            _first.Begin(sandbox, _store, spec);
            sandbox.Home = _first.Container;
        }

        boot.Finish(_first.Container);
        using StepScope handOver = trace.Begin("hand the container over");
        bool created = _first.HandOver(_store, Confinement.ForSandbox);

        // From now on signals are the proxies' part: who ends all processes of a cgroup politely does not mean the VM.
        _signals.Start(_ => { });
        return created;
    }

    /// <summary>A command wants to have one more container in the VM. On a thread of the command's connection.</summary>
    /// <param name="command">The connection.</param>
    /// <param name="files">How many descriptors it will send.</param>
    private void Join(LineChannel command, int files)
    {
        lock (_lock)
        {
            if (_ended)
            {
                command.Dispose();
                return;
            }

            _joining++;
        }

        try
        {
            JoinServer.Serve(command, files, _sandbox!, _store, Join, End);
        }
        finally
        {
            lock (_lock)
            {
                _joining--;
                Monitor.PulseAll(_lock);
            }
        }
    }

    private void Interrupt()
    {
        _interrupted = true;
        _sandbox?.Kill();
    }

    /// <summary>Ends the VM, once.</summary>
    /// <param name="leaveCgroup">A cgroup can be removed only from outside of it.</param>
    private void End(bool leaveCgroup)
    {
        lock (_lock)
        {
            if (_ended)
            {
                return;
            }

            _sandbox?.Dispose();
            if (leaveCgroup)
            {
                Try(() => _before?.Join());
            }

            _ended = true;
            Monitor.PulseAll(_lock);
        }
    }

    private void Try(Action action)
    {
        try
        {
            action();
        }
        catch (SandboxException e)
        {
            _caller.Log(LogLevel.Warning, e.Message);
        }
    }
}
