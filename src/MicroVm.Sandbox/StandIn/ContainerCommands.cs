using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Network;
using MicroVm.Sandbox.Runtime;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;
using MicroVm.Ttrpc;

namespace MicroVm.Sandbox.StandIn;

/// <summary>What commands ask of a container that is there, by its stand-in's control socket. Any thread.</summary>
internal sealed class ContainerCommands : IDisposable
{
    private readonly string _vsock;
    private readonly ContainerRecord _record;
    private readonly KeptConfiguration _configuration;
    private readonly Guest _guest;
    private readonly Vmm _vmm;
    private readonly VmNetwork _network;
    private readonly GuestProcess _process;
    private readonly StandInCaller _caller;
    private readonly TimeSpan _startTimeout;
    private readonly OutOfMemoryKills _kills;

    // Held by start and by update: each reads and writes the configuration and the limits that follow from it.
    private readonly Lock _lock = new();
    private NetworkWatch? _watch;
    private int _killed;
    private volatile bool _ended;

    /// <summary>For the container of <paramref name="record"/>. Owns none of its arguments.</summary>
    /// <param name="vsock">The VMM's vsock socket.</param>
    /// <param name="record">Its state.</param>
    /// <param name="configuration">Its configuration.</param>
    /// <param name="guest">Its agent.</param>
    /// <param name="vmm">Its VMM.</param>
    /// <param name="network">Its network.</param>
    /// <param name="process">Its first process.</param>
    /// <param name="caller">Takes log lines.</param>
    /// <param name="startTimeout">How long the guest may take to start it.</param>
    internal ContainerCommands(
        string vsock, ContainerRecord record, KeptConfiguration configuration, Guest guest, Vmm vmm, VmNetwork network, GuestProcess process, StandInCaller caller, TimeSpan startTimeout)
    {
        (_vsock, _record, _configuration, _guest, _vmm) = (vsock, record, configuration, guest, vmm);
        (_network, _process, _caller, _startTimeout) = (network, process, caller, startTimeout);
        _kills = new OutOfMemoryKills(guest.Agent, record.State.Id);
    }

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
                Kill(id, call.All);
                break;
            case ControlVerb.Signal:
                Call(agent => agent.SignalProcess(new SignalProcessRequest { ContainerId = id, Signal = (uint)call.Signal, All = call.All }));
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
                        Warnings = ContainerUpdate.Apply(_record.State, _configuration, call.Change ?? new Resources(), r => Call(agent => agent.UpdateContainer(r))),
                    };
                }

            case ControlVerb.OutOfMemory:
                (long kills, bool ended) = _kills.Wait(call.Known);
                return new ControlReply { Kills = kills, Ended = ended };
            case ControlVerb.Stats:
                return StatsReply(Call(agent => agent.StatsContainer(id)), _network.Dropped(_vmm));
        }

        return new ControlReply();
    }

    /// <summary>The init has ended: its VM is not ended for it any more, and who waits for kills is answered.</summary>
    internal void End(bool outOfMemory)
    {
        _ended = true;
        _kills.End(outOfMemory);
    }

    public void Dispose() => _watch?.Dispose();

    /// <summary>SIGKILL ends the init whatever the guest does: one that does not answer, or does not act, loses its VM.</summary>
    private void Kill(string id, bool all)
    {
        SignalProcessRequest request = new() { ContainerId = id, Signal = Libc.SIGKILL, All = all };
        try
        {
            _ = _guest.Agent.SignalProcess(request, GuestPatience.Kill);
        }
        catch (TtrpcException e) when (e.Code == StatusCode.DeadlineExceeded)
        {
            _caller.Log(LogLevel.Warning, $"container {id}: the guest gave no answer to SIGKILL within {GuestPatience.Kill.TotalSeconds} s, its VM is ended");
            EndVm();
            return;
        }
        catch (Exception e) when (e is TtrpcException or ObjectDisposedException or LinuxException)
        {
            throw Refusal(e);
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
            _vmm.Process.Signal(Libc.SIGKILL);

            // Whoever asked is to find the container stopped.
            _ = _vmm.Process.Wait(GuestPatience.Kill);
        }
    }

    private void Start(string id)
    {
        ContainerState state = _record.State;
        if (state.Status != ContainerStatus.Created)
        {
            throw new SandboxException("cannot start an already running container");
        }

        _caller.Log(LogLevel.Debug, "the start was asked for");

        _process.FollowTerminal();
        HostLimits.ApplyAtStart(new HostCgroup(state.Cgroups!), _configuration.Spec.Linux?.Resources);
        Call(agent =>
        {
            // Some callers add interfaces between create and start.
            WatchNetwork(agent);
            _network.Refresh(_vmm, agent);
            RelayNames(agent);
            _caller.Log(LogLevel.Debug, "everything but the guest is ready");
            return agent.StartContainer(id, _startTimeout);
        });
        _caller.Log(LogLevel.Debug, "the guest has started the container");
        _watch?.Begin();
        Note(ContainerStatus.Running);
        _caller.Log(LogLevel.Debug, "started");
    }

    /// <summary>Hears of changes from now on. A container whose network is not followed is better than none.</summary>
    private void WatchNetwork(AgentClient agent)
    {
        void Warn(string text) => _caller.Log(LogLevel.Warning, text);
        try
        {
            _watch?.Dispose();
            _watch = _network.Watch(_vmm, agent, _vsock, Warn);
        }
        catch (LinuxException e)
        {
            Warn($"changes of the container's network are not followed: {e.Message}");
        }
    }

    /// <summary>Names that an engine answers on the namespace's loopback interface. A container without them is better than none.</summary>
    private void RelayNames(AgentClient agent)
    {
        try
        {
            _network.FollowResolvers(_vsock, agent);
        }
        catch (Exception e) when (e is LinuxException or TtrpcException)
        {
            _caller.Log(LogLevel.Warning, $"names that are answered on the network namespace's loopback interface are not answered in the container: {e.Message}");
        }
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
            _caller.Log(LogLevel.Warning, e.Message);
        }
    }

    private T Call<T>(Func<AgentClient, T> call)
    {
        try
        {
            return call(_guest.Agent);
        }
        catch (Exception e) when (e is TtrpcException or ObjectDisposedException or LinuxException)
        {
            throw Refusal(e);
        }
    }

    private static SandboxException Refusal(Exception e) =>
        new(e is TtrpcException { Code: not StatusCode.NotFound } ? e.Message : RuntimeTexts.NotRunning, e);

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
