namespace MicroVm.VirtioFs.Waiting;

/// <summary>INTERRUPTs that came before the request that they are about: they take the other queue. The oldest are forgotten. Its owner locks.</summary>
internal sealed class EarlyInterrupts
{
    private const int Max = 64;
    private readonly ulong[] _uniques = new ulong[Max];
    private int _next;

    /// <summary>Notes an interrupt of a request that is not known.</summary>
    public void Add(ulong unique)
    {
        _uniques[_next] = unique;
        _next = (_next + 1) % Max;
    }

    /// <summary>Whether a request was interrupted before it came; the interrupt is used up.</summary>
    public bool TryTake(ulong unique)
    {
        int index = Array.IndexOf(_uniques, unique);
        if (index >= 0)
        {
            _uniques[index] = 0;
        }

        return index >= 0;
    }

    /// <summary>Forgets all.</summary>
    public void Clear() => Array.Clear(_uniques);
}
