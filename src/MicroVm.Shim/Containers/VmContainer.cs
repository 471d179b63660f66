using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Network;
using MicroVm.Sandbox.Plan;
using MicroVm.Sandbox.Runtime;
using MicroVm.Sandbox.StandIn;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;
using MicroVm.Shim.Streams;
using MicroVm.Ttrpc;
using Process = MicroVm.Oci.Config.Process;

namespace MicroVm.Shim.Containers;

/// <summary>A container in a VM of its own, as <see cref="VmContainerFactory"/> makes it.</summary>
internal sealed class VmContainer : ITaskContainer
{
    private readonly VmParts _parts;
    private readonly ContainerRequest _request;
    private readonly OutOfMemoryKills _kills;
    private readonly Lock _lock = new();
    private readonly Lock _endLock = new();
    private NetworkWatch? _watch;
    private bool _vmEnded;
    private int _killed;
    private volatile bool _ended;

    internal VmContainer(ContainerRequest request, VmParts parts)
    {
        (_request, _parts) = (request, parts);
        Init = parts.Init!;
        Pid = parts.Vmm!.Process.Pid;
        _kills = new OutOfMemoryKills(parts.Guest!.Agent, request.Id);
    }

    /// <inheritdoc/>
    public int Pid { get; }

    /// <inheritdoc/>
    public ITaskProcess Init { get; }

    /// <inheritdoc/>
    public void Start()
    {
        lock (_lock)
        {
            ContainerState state = _parts.Record!.State;
            HostLimits.ApplyAtStart(_parts.Cgroup!, _parts.Configuration!.Spec.Linux?.Resources);
            Call(agent =>
            {
                // Some callers add interfaces between create and start.
                WatchNetwork(agent);
                _parts.Network!.Refresh(_parts.Vmm!, agent);
                RelayNames(agent);
                return agent.StartContainer(_request.Id, _request.Vm.StartTimeout);
            });
            _watch?.Begin();
            Note(ContainerStatus.Running);
            Warn(() => HookRunner.Run("poststart", state.Hooks?.Poststart, state.ToOci(ContainerStatus.Running)));
        }
    }

    /// <inheritdoc/>
    public ITaskProcess Exec(Process process, StdioUris uris, (uint Width, uint Height) size)
    {
        List<string> warnings = [];
        ExecProcessRequest exec = new()
        {
            ContainerId = _request.Id,
            ExecId = Guid.NewGuid().ToString("N"),
            Process = ProcessPlan.Build(process, _parts.Configuration!.Spec.Linux ?? new Oci.Config.Linux(), warnings),
        };
        exec.Process.Terminal = uris.Terminal;
        if (size.Width > 0 && size.Height > 0)
        {
            (exec.Process.ConsoleWidth, exec.Process.ConsoleHeight) = size;
        }

        CallerLimits.Add(exec.Process);
        HomeDirectory.Add(exec.Process, _parts.Record!.State.Rootfs);
        warnings.ForEach(w => _request.Log.Write(LogLevel.Warning, w));
        StdioEnds ends = StdioEnds.Open(uris, new ProcessName(_request.Namespace, _request.Id));
        GuestStdio? stdio = null;
        try
        {
            stdio = GuestStdio.Connect(_parts.Vsock, ends, uris.Terminal, GuestPatience.Call);
            exec.Stdio = stdio.Ports;
            _ = Call(agent => agent.ExecProcess(exec, GuestPatience.Exec));
            stdio.Start();
            return new VmProcess(_parts.Guest!.Agent, new ProcessId { ContainerId = _request.Id, ExecId = exec.ExecId }, stdio);
        }
        catch (Exception e)
        {
            stdio?.Dispose();
            ends.Dispose();
            throw e is SandboxException ? e : new SandboxException(e.Message, e);
        }
    }

    /// <inheritdoc/>
    public void Signal(int signal, bool all)
    {
        SignalProcessRequest request = new() { ContainerId = _request.Id, Signal = (uint)signal, All = all };
        if (signal != Libc.SIGKILL)
        {
            _ = Call(agent => agent.SignalProcess(request));
            return;
        }

        try
        {
            _ = _parts.Guest!.Agent.SignalProcess(request, GuestPatience.Kill);
        }
        catch (TtrpcException e) when (e.Code == StatusCode.DeadlineExceeded)
        {
            _request.Log.Write(LogLevel.Warning, $"container {_request.Id}: the guest gave no answer to SIGKILL within {GuestPatience.Kill.TotalSeconds} s, its VM is ended");
            KillVm();
            return;
        }
        catch (Exception e) when (e is TtrpcException or ObjectDisposedException or LinuxException)
        {
            throw Refusal(e);
        }

        if (Interlocked.Exchange(ref _killed, 1) == 0)
        {
            // SIGKILL ends the container whatever the guest does.
            new Thread(KillVmLater, 128 << 10) { IsBackground = true, Name = "kill" }.Start();
        }
    }

    /// <inheritdoc/>
    public void Pause()
    {
        _ = Call(agent => agent.PauseContainer(_request.Id));
        Note(ContainerStatus.Paused);
    }

    /// <inheritdoc/>
    public void Resume()
    {
        _ = Call(agent => agent.ResumeContainer(_request.Id));
        Note(ContainerStatus.Running);
    }

    /// <inheritdoc/>
    public void Update(Resources change)
    {
        lock (_lock)
        {
            ContainerUpdate.Apply(_parts.Record!.State, _parts.Configuration!, change, r => Call(agent => agent.UpdateContainer(r)))
                .ForEach(w => _request.Log.Write(LogLevel.Warning, w));
        }
    }

    /// <inheritdoc/>
    public ContainerFigures Statistics()
    {
        ContainerStats stats = Call(agent => agent.StatsContainer(_request.Id));
        IReadOnlyDictionary<string, (ulong Received, ulong Sent)> dropped = _parts.Network!.Dropped(_parts.Vmm!);
        return new ContainerFigures(
            new SortedDictionary<string, string>(stats.CgroupFiles, StringComparer.Ordinal),
            [
                .. stats.Interfaces.Select(i => new InterfaceCounters(
                    i.Name, i.RxBytes, i.RxPackets, i.RxErrors, i.RxDropped + dropped.GetValueOrDefault(i.Name).Received,
                    i.TxBytes, i.TxPackets, i.TxErrors, i.TxDropped + dropped.GetValueOrDefault(i.Name).Sent)),
            ]);
    }

    /// <inheritdoc/>
    public void FollowOutOfMemory(Action killed)
    {
        long known = 0;
        while (true)
        {
            (long count, bool ended) = _kills.Wait(known);
            for (; known < count; known++)
            {
                killed();
            }

            if (ended)
            {
                return;
            }
        }
    }

    /// <inheritdoc/>
    public void NoteEnd(bool outOfMemory)
    {
        _ended = true;
        _kills.End(outOfMemory);
    }

    /// <inheritdoc/>
    public void EndVm()
    {
        lock (_endLock)
        {
            if (!_vmEnded)
            {
                _vmEnded = true;
                _ended = true;
                _watch?.Dispose();
                _parts.EndVm();
            }
        }
    }

    /// <inheritdoc/>
    public void Delete()
    {
        EndVm();
        Init.Close();
        ContainerState state = _parts.Record!.State;
        _parts.Remove();
        Warn(() => HookRunner.Run("poststop", state.Hooks?.Poststop, state.ToOci(ContainerStatus.Stopped)));
    }

    private void KillVmLater()
    {
        Thread.Sleep(GuestPatience.Death);
        if (!_ended)
        {
            KillVm();
        }
    }

    private void KillVm()
    {
        lock (_endLock)
        {
            if (!_vmEnded)
            {
                _ = _parts.Vmm!.Process.Kill();
            }
        }
    }

    /// <summary>Hears of changes from now on. A container whose network is not followed is better than none.</summary>
    private void WatchNetwork(AgentClient agent)
    {
        try
        {
            _watch?.Dispose();
            _watch = _parts.Network!.Watch(_parts.Vmm!, agent, _parts.Vsock, text => _request.Log.Write(LogLevel.Warning, text));
        }
        catch (LinuxException e)
        {
            _request.Log.Write(LogLevel.Warning, $"changes of the container's network are not followed: {e.Message}");
        }
    }

    private void RelayNames(AgentClient agent)
    {
        try
        {
            _parts.Network!.FollowResolvers(_parts.Vsock, agent);
        }
        catch (Exception e) when (e is LinuxException or TtrpcException)
        {
            _request.Log.Write(
                LogLevel.Warning, $"names that are answered on the network namespace's loopback interface are not answered in the container: {e.Message}");
        }
    }

    /// <summary>What has happened in the guest is not undone because the host's disk is full.</summary>
    private void Note(ContainerStatus status) => Warn(() => _parts.Record!.Change(s => s with { Status = status }));

    private void Warn(Action action)
    {
        try
        {
            action();
        }
        catch (SandboxException e)
        {
            _request.Log.Write(LogLevel.Warning, e.Message);
        }
    }

    private T Call<T>(Func<AgentClient, T> call)
    {
        try
        {
            return call(_parts.Guest!.Agent);
        }
        catch (Exception e) when (e is TtrpcException or ObjectDisposedException or LinuxException)
        {
            throw Refusal(e);
        }
    }

    private static SandboxException Refusal(Exception e) =>
        new(e is TtrpcException { Code: not StatusCode.NotFound } ? e.Message : RuntimeTexts.NotRunning, e);
}
