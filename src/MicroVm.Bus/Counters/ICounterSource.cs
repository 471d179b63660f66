namespace MicroVm.Bus.Counters;

/// <summary>Something that counts what it does, for the control socket's Info answer.</summary>
public interface ICounterSource
{
    /// <summary>
    /// Calls <paramref name="add"/> with each counter's dotted name (<c>vsock.rx.bytes</c>) and value. Any thread may
    /// call it while the counters move on: each value is exact, the set of them is not one instant's.
    /// </summary>
    void CollectCounters(Action<string, long> add);
}
