using MicroVm.Sandbox.HostCgroups;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Runtime;

/// <summary>Removes containers from the host.</summary>
internal sealed class DeleteVerb(RuntimeContext runtime, ContainerTermination termination)
{
    /// <summary>Removes a container that has ended; with <paramref name="force"/> ends it first, and an unknown id is no error.</summary>
    internal void Delete(string id, bool force)
    {
        ContainerState? state;
        using (HeldContainer? held = runtime.Store.Hold(id))
        {
            state = held is null ? null : runtime.Store.Find(id);
            if (state is null)
            {
                if (!force)
                {
                    throw new SandboxException(ContainerStore.ContainerMissing);
                }

                runtime.Store.DeleteStateless(id);
                return;
            }

            ContainerStatus status = state.LiveStatus();
            if (!force && status is not (ContainerStatus.Stopped or ContainerStatus.Created))
            {
                throw new SandboxException($"cannot delete container {id} that is not stopped: {RuntimeTexts.Name(status)}");
            }

            Remove(held!, state);
        }

        RunPoststop(state);
    }

    /// <summary>Ends what lives, forgets the container, and runs its poststop hooks; nothing happens when another has done so.</summary>
    internal void Destroy(ContainerState state)
    {
        using (HeldContainer? held = runtime.Store.Hold(state.Id))
        {
            if (held is null || runtime.Store.Find(state.Id) is not { } last || last.Init != state.Init)
            {
                return;
            }

            Remove(held, last);
        }

        RunPoststop(state);
    }

    private void RunPoststop(ContainerState state) =>
        runtime.WarnOnly(() => HookRunner.Run("poststop", state.Hooks?.Poststop, state.ToOci(ContainerStatus.Stopped)));

    private void Remove(HeldContainer held, ContainerState state)
    {
        termination.End(state);
        runtime.LogStep("its processes have ended");
        if (!held.IsThere)
        {
            // A creation that failed in the meantime has removed everything itself, and the id may be another's now.
            return;
        }

        foreach (string folder in new HostCgroup(state.Cgroups ?? []).Remove())
        {
            runtime.Log.Write(LogLevel.Warning, $"cgroup {folder} could not be removed");
        }

        runtime.LogStep("its cgroups are removed");
        if (state.NetworkNamespace is { } network)
        {
            Network.ContainerNetwork.CleanUp(network);
        }

        runtime.Store.Delete(state);
        runtime.LogStep("deleted");
    }
}
