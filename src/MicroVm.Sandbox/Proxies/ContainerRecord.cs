using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Proxies;

/// <summary>A container's state, in memory and in the state folder. Any thread.</summary>
internal sealed class ContainerRecord
{
    private readonly ContainerStore _store;
    private readonly Lock _lock = new();
    private ContainerState _state;

    private ContainerRecord(ContainerStore store, ContainerState state) => (_store, _state) = (store, state);

    /// <summary>As it is now.</summary>
    internal ContainerState State
    {
        get
        {
            lock (_lock)
            {
                return _state;
            }
        }
    }

    /// <summary>Takes the id and writes the first state.</summary>
    /// <exception cref="SandboxException">The id is in use, or the folder cannot be written.</exception>
    internal static ContainerRecord Create(ContainerStore store, ContainerState state)
    {
        store.Create(state);
        return new ContainerRecord(store, state);
    }

    /// <summary>Changes the state, here and in its folder.</summary>
    /// <exception cref="SandboxException">The folder cannot be written: it is changed here alone.</exception>
    internal void Change(Func<ContainerState, ContainerState> change)
    {
        lock (_lock)
        {
            _state = change(_state);
            _store.Update(_state);
        }
    }

    /// <summary>Gives the id free.</summary>
    internal void Delete() => _store.Delete(State);
}
