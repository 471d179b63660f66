using MicroVm.Linux.Native;

namespace MicroVm.VirtioFs.Descriptors;

/// <summary>What a guest names by ids and the host holds open: inodes and file handles.</summary>
/// <remarks>
/// Any thread; every method is a short critical section. Descriptors are kept as numbers in unmanaged memory, not as
/// <see cref="Linux.SafeFd"/>: a guest looks up tens of thousands of files, and each would be a finalisable object. The
/// table owns them; a pin lends one for the length of a request.
/// </remarks>
/// <typeparam name="T">The entry.</typeparam>
internal abstract class FdTable<T> : IDisposable
    where T : unmanaged
{
    /// <summary>Makes an empty table whose descriptors count against <paramref name="budget"/>.</summary>
    protected FdTable(uint firstId, FdBudget budget)
    {
        Budget = budget;
        Slots = new SlotTable<T>(firstId);
    }

    /// <summary>Number of entries.</summary>
    public int Count
    {
        get
        {
            lock (Gate)
            {
                return Slots.Count;
            }
        }
    }

    /// <summary>What the entries' descriptors count against.</summary>
    public FdBudget Budget { get; }

    /// <summary>Held by whoever looks at the entries; pulsed when a closing one is not pinned any more.</summary>
    public object Gate { get; } = new();

    /// <summary>The entries.</summary>
    public SlotTable<T> Slots { get; }

    /// <summary>
    /// Closes the descriptors of entries that no export leads to any more. Their ids stay known to be dead until the guest
    /// gives them back.
    /// </summary>
    /// <param name="timeoutMilliseconds">How long to wait for requests that have one in use.</param>
    /// <returns>False when such a request went on for longer; it closes the descriptor at its end.</returns>
    public bool CloseUnreachable(int timeoutMilliseconds)
    {
        long deadline = Environment.TickCount64 + timeoutMilliseconds;
        lock (Gate)
        {
            while (true)
            {
                bool busy = false;
                for (int i = 0; i < Slots.HighWater; i++)
                {
                    busy |= Slots.IsUsed(i) && !CloseIfUnreachable(i);
                }

                long left = deadline - Environment.TickCount64;
                if (!busy || left <= 0)
                {
                    return !busy;
                }

                Monitor.Wait(Gate, (int)left);
            }
        }
    }

    /// <summary>Drops every entry, as when the guest unmounts. None may be pinned.</summary>
    public void Clear()
    {
        lock (Gate)
        {
            for (int i = 0; i < Slots.HighWater; i++)
            {
                if (Slots.IsUsed(i))
                {
                    Drop(i);
                }
            }
        }
    }

    /// <inheritdoc/>
    public virtual void Dispose()
    {
        Clear();
        Slots.Dispose();
        GC.SuppressFinalize(this);
    }

    /// <summary>Closes the descriptor of an entry that no export leads to; from now on it cannot be pinned.</summary>
    /// <returns>False when a request has it in use, which closes it at its end.</returns>
    protected abstract bool CloseIfUnreachable(int index);

    /// <summary>Takes an entry out, which no request has in use.</summary>
    protected abstract void Drop(int index);

    /// <summary>Closes an entry's descriptor, when it has one, and gives its unit of the budget back.</summary>
    public void Close(ref int fd)
    {
        if (fd >= 0)
        {
            _ = Libc.close(fd);
            fd = -1;
            Budget.Give();
        }
    }
}
