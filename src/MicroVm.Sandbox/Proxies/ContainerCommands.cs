using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Linux.Tracing;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Pods;
using MicroVm.Sandbox.Runtime;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;
using MicroVm.Ttrpc;

namespace MicroVm.Sandbox.Proxies;

/// <summary>What commands ask of a container that is there, by its control socket. Any thread.</summary>
internal sealed class ContainerCommands
{
    private readonly PodSandbox _sandbox;
    private readonly ContainerRecord _record;
    private readonly KeptConfiguration _configuration;
    private readonly IContainerInit _init;
    private readonly TimeSpan _startTimeout;
    private readonly Action<LogLevel, string> _log;

    // Held by start and by update: each reads and writes the configuration and the limits that follow from it.
    private readonly Lock _lock = new();
    private OutOfMemoryKills? _kills;
    private int _killed;
    private volatile bool _ended;

    /// <summary>For the container of <paramref name="record"/>. Owns none of its arguments.</summary>
    /// <param name="sandbox">Its VM.</param>
    /// <param name="record">Its state.</param>
    /// <param name="configuration">Its configuration.</param>
    /// <param name="init">Its first process.</param>
    /// <param name="startTimeout">How long the guest may take to start it.</param>
    /// <param name="log">Takes log lines.</param>
    internal ContainerCommands(PodSandbox sandbox, ContainerRecord record, KeptConfiguration configuration, IContainerInit init, TimeSpan startTimeout, Action<LogLevel, string> log) =>
        (_sandbox, _record, _configuration, _init, _startTimeout, _log) = (sandbox, record, configuration, init, startTimeout, log);

    private OutOfMemoryKills Kills => LazyInitializer.EnsureInitialized(ref _kills, () => new OutOfMemoryKills(_sandbox.Guest.Agent, _record.State.Id))!;

    /// <summary>Does what is asked.</summary>
    /// <exception cref="SandboxException">It cannot be done: why, for the command's user.</exception>
    internal ControlReply Answer(ControlCall call)
    {
        string id = _record.State.Id;
        switch (call.Verb)
        {
            case ControlVerb.Start:
                lock (_lock)
                {
                    Start(id);
                }

                break;
            case ControlVerb.Signal when call.Signal == Libc.SIGKILL:
                Kill(call.All);
                break;
            case ControlVerb.Signal:
                _ = SignalRefusal.Call(() => _sandbox.Guest.Agent.SignalProcess(new SignalProcessRequest { ContainerId = id, Signal = (uint)call.Signal, All = call.All }));
                break;
            case ControlVerb.Pause:
                Call(agent => agent.PauseContainer(id));
                Note(ContainerStatus.Paused);
                break;
            case ControlVerb.Resume:
                Call(agent => agent.ResumeContainer(id));
                Note(ContainerStatus.Running);
                break;
            case ControlVerb.Update:
                lock (_lock)
                {
                    return new ControlReply
                    {
                        Warnings = ContainerUpdate.Apply(
                            _record.State, _configuration, call.Change ?? new Resources(), r => Call(agent => agent.UpdateContainer(r)), _sandbox.IsShared,
                            _sandbox.Size.MemoryGrows ? limit => _sandbox.Size.FitMemory(_sandbox, id, limit) : null,
                            _sandbox.Size.CpusGrow ? cpu => _sandbox.Size.FitCpus(_sandbox, id, cpu) : null),
                    };
                }

            case ControlVerb.OutOfMemory:
                (long kills, bool ended) = Kills.Wait(call.Known);
                return new ControlReply { Kills = kills, Ended = ended };
            case ControlVerb.Stats:
                return StatsReply(Call(agent => agent.StatsContainer(id)), _sandbox.Network.Dropped(_sandbox.Vmm));
        }

        return call.Verb == ControlVerb.Join ? throw new SandboxException("no container can join here") : new ControlReply();
    }

    /// <summary>The init has ended: its VM is not ended for it any more, and who waits for kills is answered.</summary>
    internal void End(bool outOfMemory)
    {
        _ended = true;
        Kills.End(outOfMemory);
    }

    /// <summary>SIGKILL ends the init whatever the guest does: one that does not answer, or does not act, loses its VM.</summary>
    /// <exception cref="SandboxException">It has ended already.</exception>
    internal void Kill(bool all)
    {
        string id = _record.State.Id;
        SignalProcessRequest request = new() { ContainerId = id, Signal = Libc.SIGKILL, All = all };
        try
        {
            _ = _sandbox.Guest.Agent.SignalProcess(request, GuestPatience.Kill);
        }
        catch (TtrpcException e) when (e.Code == StatusCode.DeadlineExceeded)
        {
            _log(LogLevel.Warning, $"container {id}: the guest gave no answer to SIGKILL within {GuestPatience.Kill.TotalSeconds} s, its VM is ended");
            EndVm();
            return;
        }
        catch (Exception e) when (SignalRefusal.Knows(e))
        {
            throw SignalRefusal.Of(e);
        }

        if (Interlocked.Exchange(ref _killed, 1) == 0)
        {
            try
            {
                new Thread(EndVmLater, 128 << 10) { IsBackground = true, Name = "kill" }.Start();
            }
            catch (OutOfMemoryException)
            {
                // No thread is left that could give the guest its time.
                EndVm();
            }
        }
    }

    private void EndVmLater()
    {
        Thread.Sleep(GuestPatience.Death);
        EndVm();
    }

    private void EndVm()
    {
        if (!_ended)
        {
            Vmm vmm = _sandbox.Vmm;
            vmm.Process.Signal(Libc.SIGKILL);

            // Whoever asked is to find the container stopped.
            _ = vmm.Process.Wait(GuestPatience.Kill);
        }
    }

    private void Start(string id)
    {
        ContainerState state = _record.State;
        if (state.Status != ContainerStatus.Created)
        {
            throw new SandboxException("cannot start an already running container");
        }

        _log(LogLevel.Debug, "the start was asked for");
        using StepScope step = _sandbox.Trace.Begin("start the container");

        if (!_sandbox.IsShared)
        {
            HostLimits.ApplyAtStart(new HostCgroup(state.Cgroups!), _configuration.Spec.Linux?.Resources);
        }

        _init.FollowTerminal();
        Call(agent =>
        {
            // Some callers add interfaces between create and start.
            using (_sandbox.Trace.Begin("refresh the network"))
            {
                _sandbox.RefreshNetwork(agent);
            }

            _log(LogLevel.Debug, "everything but the guest is ready");
            using StepScope inGuest = _sandbox.Trace.Begin("start the container in the guest");
            return agent.StartContainer(id, _startTimeout);
        });
        _log(LogLevel.Debug, "the guest has started the container");
        _sandbox.FollowNetwork();
        Note(ContainerStatus.Running);
        _log(LogLevel.Debug, "started");
    }

    /// <summary>What has happened in the guest is not undone because the host's disk is full.</summary>
    private void Note(ContainerStatus status)
    {
        try
        {
            _record.Change(s => s with { Status = status });
        }
        catch (SandboxException e)
        {
            _log(LogLevel.Warning, e.Message);
        }
    }

    private T Call<T>(Func<AgentClient, T> call)
    {
        try
        {
            return call(_sandbox.Guest.Agent);
        }
        catch (Exception e) when (e is TtrpcException or ObjectDisposedException or LinuxException)
        {
            throw _sandbox.Guest.Refusal(e);
        }
    }

    private static ControlReply StatsReply(ContainerStats stats, IReadOnlyDictionary<string, (ulong Received, ulong Sent)> dropped) => new()
    {
        Files = new SortedDictionary<string, string>(stats.CgroupFiles, StringComparer.Ordinal),
        Interfaces =
        [
            .. stats.Interfaces.Select(i => new InterfaceCounters(
                i.Name, i.RxBytes, i.RxPackets, i.RxErrors, i.RxDropped + dropped.GetValueOrDefault(i.Name).Received,
                i.TxBytes, i.TxPackets, i.TxErrors, i.TxDropped + dropped.GetValueOrDefault(i.Name).Sent)),
        ],
    };
}
