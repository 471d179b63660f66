using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.StandIn;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Runtime;

public sealed partial class ContainerRuntime
{
    private const int PollMilliseconds = 10;
    private static readonly TimeSpan EndTimeout = TimeSpan.FromSeconds(10);

    /// <summary>Sends a signal to the container's init, or to all of its processes.</summary>
    public void Kill(string id, string signal, bool all)
    {
        (ContainerState state, ContainerStatus status) = State(id);
        int number = SignalNames.Parse(signal);
        if (status == ContainerStatus.Stopped)
        {
            if (all)
            {
                return;
            }

            throw new SandboxException(RuntimeTexts.NotRunning);
        }

        try
        {
            Ask(id, new ControlCall { Verb = ControlVerb.Signal, Signal = number, All = all });
        }
        catch (SandboxException) when (number == Libc.SIGKILL && state.LiveStatus() != ContainerStatus.Stopped)
        {
            // The container's process on the host does not answer: it is ended with its VM.
            End(state);
        }
    }

    /// <summary>Removes a container that has ended; with <paramref name="force"/> ends it first, and an unknown id is no error.</summary>
    public void Delete(string id, bool force)
    {
        ContainerState? state;
        using (HeldContainer? held = _store.Hold(id))
        {
            state = held is null ? null : _store.Find(id);
            if (state is null)
            {
                if (!force)
                {
                    throw new SandboxException(ContainerStore.ContainerMissing);
                }

                _store.DeleteStateless(id);
                return;
            }

            ContainerStatus status = state.LiveStatus();
            if (!force && status is not (ContainerStatus.Stopped or ContainerStatus.Created))
            {
                throw new SandboxException($"cannot delete container {id} that is not stopped: {Name(status)}");
            }

            Remove(held!, state);
        }

        RunPoststop(state);
    }

    /// <summary>Ends what lives, forgets the container, and runs its poststop hooks; nothing happens when another has done so.</summary>
    private void Destroy(ContainerState state)
    {
        using (HeldContainer? held = _store.Hold(state.Id))
        {
            if (held is null || _store.Find(state.Id) is not { } last || last.Init != state.Init)
            {
                return;
            }

            Remove(held, last);
        }

        RunPoststop(state);
    }

    private void RunPoststop(ContainerState state) =>
        WarnOnly(() => HookRunner.Run("poststop", state.Hooks?.Poststop, state.ToOci(ContainerStatus.Stopped)));

    private void Remove(HeldContainer held, ContainerState state)
    {
        End(state);
        Done("its processes have ended");
        if (!held.IsThere)
        {
            // A creation that failed in the meantime has removed everything itself, and the id may be another's now.
            return;
        }

        foreach (string folder in new HostCgroup(state.Cgroups ?? []).Remove())
        {
            _log.Write(LogLevel.Warning, $"cgroup {folder} could not be removed");
        }

        Done("its cgroups are removed");
        if (state.NetworkNamespace is { } network)
        {
            Network.ContainerNetwork.CleanUp(network);
        }

        _store.Delete(state);
        Done("deleted");
    }

    private void End(ContainerState state)
    {
        // One that was being created may have got its VMM since.
        state = _store.Find(state.Id) is { } last && last.Init == state.Init ? last : state;
        bool alone = _store.Companions(state).Count == 0 || !EndOne(state);
        List<ProcessIdentity> processes = [.. ExecRecords.Alive(_store.FolderOf(state.Id)), state.Init];
        if (alone)
        {
            // The proxy last: it ends with the sandbox process.
            processes.InsertRange(0, new[] { state.Vmm, state.Sandbox }.OfType<ProcessIdentity>());
        }

        processes.ForEach(p => p.Signal(Libc.SIGKILL));
        long deadline = Environment.TickCount64 + (long)EndTimeout.TotalMilliseconds;
        foreach (ProcessIdentity process in processes)
        {
            if (!process.WaitForEnd(TimeSpan.FromMilliseconds(Math.Max(0, deadline - Environment.TickCount64))))
            {
                throw new SandboxException($"container {state.Id}: process {process.Pid} does not end after SIGKILL");
            }
        }
    }

    /// <summary>Ends one of several containers of a VM: the sandbox process ends it when its proxy is gone, and says so in its state.</summary>
    /// <returns>False when it did not in time: then only the end of the VM ends the container.</returns>
    private bool EndOne(ContainerState state)
    {
        state.Init.Signal(Libc.SIGKILL);
        long deadline = Environment.TickCount64 + (long)EndTimeout.TotalMilliseconds;
        while (Environment.TickCount64 < deadline)
        {
            if (_store.Find(state.Id) is not { } now || now.Init != state.Init || now.Status == ContainerStatus.Stopped || !state.Sandbox!.IsAlive())
            {
                return true;
            }

            Thread.Sleep(PollMilliseconds);
        }

        _log.Write(LogLevel.Warning, $"container {state.Id} does not end: its VM is ended, and with it the VM's other containers");
        return false;
    }
}
