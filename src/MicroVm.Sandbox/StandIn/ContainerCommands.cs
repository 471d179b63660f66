using MicroVm.Linux;
using MicroVm.Oci;
using MicroVm.Oci.Config;
using MicroVm.Protocol.Agent;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.Network;
using MicroVm.Sandbox.Plan;
using MicroVm.Sandbox.Runtime;
using MicroVm.Sandbox.State;
using MicroVm.Sandbox.Vm;
using MicroVm.Ttrpc;

namespace MicroVm.Sandbox.StandIn;

/// <summary>What commands ask of a container that is there, by its stand-in's control socket. Any thread.</summary>
internal sealed class ContainerCommands : IDisposable
{
    private readonly string _folder;
    private readonly ContainerRecord _record;
    private readonly Guest _guest;
    private readonly Vmm _vmm;
    private readonly VmNetwork _network;
    private readonly StandInCaller _caller;
    private readonly Lock _startLock = new();
    private NetworkWatch? _watch;

    /// <summary>For the container whose files are in <paramref name="folder"/>. Owns none of them.</summary>
    internal ContainerCommands(string folder, ContainerRecord record, Guest guest, Vmm vmm, VmNetwork network, StandInCaller caller) =>
        (_folder, _record, _guest, _vmm, _network, _caller) = (folder, record, guest, vmm, network, caller);

    /// <summary>Does what is asked.</summary>
    /// <exception cref="SandboxException">It cannot be done: why, for the command's user.</exception>
    internal ControlReply Answer(ControlCall call)
    {
        string id = _record.State.Id;
        switch (call.Verb)
        {
            case ControlVerb.Start:
                lock (_startLock)
                {
                    Start(id);
                }

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
                Call(agent => agent.UpdateContainer(UpdateContainerRequest.Parser.ParseFrom(call.Update ?? [])));
                break;
            case ControlVerb.Stats:
                return StatsReply(Call(agent => agent.StatsContainer(id)), _network.Dropped(_vmm));
        }

        return new ControlReply();
    }

    public void Dispose() => _watch?.Dispose();

    private void Start(string id)
    {
        ContainerState state = _record.State;
        if (state.Status != ContainerStatus.Created)
        {
            throw new SandboxException("cannot start an already running container");
        }

        _caller.Log(LogLevel.Debug, "the start was asked for");

        // As it is now: it may have been updated since.
        Spec spec = SpecReader.ReadBundle(_folder);
        HostLimits.ApplyAtStart(new HostCgroup(state.Cgroups!), spec.Linux?.Resources);
        Call(agent =>
        {
            // Some callers add interfaces between create and start.
            WatchNetwork(agent);
            _network.Refresh(_vmm, agent);
            _caller.Log(LogLevel.Debug, "everything but the guest is ready");
            return agent.StartContainer(id);
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
            _watch = _network.Watch(_vmm, agent, Warn);
        }
        catch (LinuxException e)
        {
            Warn($"changes of the container's network are not followed: {e.Message}");
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
        catch (TtrpcException e)
        {
            throw new SandboxException(e.Code == StatusCode.NotFound ? RuntimeTexts.NotRunning : e.Message, e);
        }
        catch (Exception e) when (e is ObjectDisposedException or LinuxException)
        {
            throw new SandboxException(RuntimeTexts.NotRunning, e);
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
