using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Descriptors;
using MicroVm.VirtioFs.HostFiles;

namespace MicroVm.VirtioFs.Inodes;

/// <summary>
/// The inodes that the guest's kernel holds references to, and the folders above them. Each is known by its
/// <see cref="InodeKey"/> and by the name that led to it last, by which its descriptor is opened again when it is needed. Any thread.
/// </summary>
/// <remarks>
/// A descriptor keeps the host from giving the inode's number to another file. Those that requests use, those that the guest has open, the
/// exports' roots, and a bounded number of idle ones are open.
/// </remarks>
internal sealed class InodeTable : IDisposable
{
    private const int CloseAtOnce = 128;
    private readonly InodeStore _store;
    private readonly InodeOpener _opener;

    /// <summary>Makes an empty table.</summary>
    /// <param name="budget">What its descriptors count against.</param>
    /// <param name="mostEntries">How many inodes it knows at once; the guest looks up again what had to go.</param>
    public InodeTable(FdBudget budget, int mostEntries)
    {
        _store = new InodeStore(budget);
        _opener = new InodeOpener(_store);
        Arrivals = new InodeArrivals(_store, _opener, mostEntries);
        Names = new InodeNames(_store);
        Mounts = new CommonMount(_store, _opener);
    }

    /// <summary>How inodes get into the table.</summary>
    public InodeArrivals Arrivals { get; }

    /// <summary>Names and folders of inodes.</summary>
    public InodeNames Names { get; }

    /// <summary>Opens two inodes through one mount.</summary>
    public CommonMount Mounts { get; }

    /// <summary>How many inodes there are.</summary>
    public int Count => _store.Count;

    /// <summary>Inodes that have a descriptor although the guest has no handle on them.</summary>
    public int IdleCount
    {
        get
        {
            lock (_store.Gate)
            {
                return _store.Idle.Count;
            }
        }
    }

    /// <inheritdoc cref="InodeStore.TryTake"/>
    public bool TryTake() => _store.TryTake();

    /// <summary>Lends an inode's descriptor until the pin is disposed of; opens it again when it was closed.</summary>
    /// <returns>False when <paramref name="nodeId"/> names no inode, its export was removed, or its name leads to it no more.</returns>
    public bool TryPin(ulong nodeId, out InodePin pin)
    {
        int index;
        lock (_store.Gate)
        {
            pin = default;
            index = _store.Slots.Find(nodeId);
            if (index < 0)
            {
                return false;
            }

            ref InodeEntry e = ref _store.Slots.Entry(index);
            if (e.IsClosing || e.References == 0)
            {
                return false;
            }

            e.Pins++;
            if (e.Fd >= 0)
            {
                e.IsRecent = true;
                pin = new InodePin(_store, nodeId, index, e);
                return true;
            }
        }

        return _opener.TryOpenPinned(index, out pin);
    }

    /// <summary>Lends the inode that a name leads to, if it is in the table.</summary>
    // Safe: the name is passed on, not followed.
    public unsafe bool TryPinKnown(scoped in InodeKey key, scoped in Libc.statx_t stat, scoped in InodePin parent, byte* name, out InodePin pin)
    {
        int index;
        lock (_store.Gate)
        {
            pin = default;
            index = _store.Find(key, stat, parent.IsOverlay, parent.Index, name, out _);
            if (index < 0)
            {
                return false;
            }

            _store.Slots.Entry(index).Pins++;
        }

        return _opener.TryOpenPinned(index, out pin);
    }

    /// <summary>
    /// Gives the guest one more reference to the inode that a name leads to, if it is in the table, and notes the name.
    /// </summary>
    /// <param name="key">Which inode, by statx(2) of the name; its rights are the folder's.</param>
    /// <param name="stat">What statx(2) said.</param>
    /// <param name="parent">The folder, pinned.</param>
    /// <param name="name">The name, ended by a NUL.</param>
    /// <returns>Its node id, or 0 when it is not in the table or only its descriptor can tell.</returns>
    // Safe: the name is passed on, not followed.
    public unsafe ulong AddReference(in InodeKey key, in Libc.statx_t stat, in InodePin parent, byte* name)
    {
        lock (_store.Gate)
        {
            int index = _store.Find(key, stat, parent.IsOverlay, parent.Index, name, out _);
            return index < 0 ? 0 : _store.Reference(index, parent.Index, name);
        }
    }

    /// <summary>Gives the guest one more reference to an inode that a request has pinned.</summary>
    // Safe: no name is passed on.
    public unsafe ulong AddReference(in InodePin pin)
    {
        lock (_store.Gate)
        {
            return _store.Reference(pin.Index, InodeEntry.None, null);
        }
    }

    /// <summary>Takes back <paramref name="count"/> references; more than there are takes all. Unknown ids are ignored.</summary>
    public void Forget(ulong nodeId, ulong count)
    {
        lock (_store.Gate)
        {
            int index = _store.Slots.Find(nodeId);
            if (index < 0)
            {
                return;
            }

            ref InodeEntry e = ref _store.Slots.Entry(index);
            e.References = count >= e.References ? 0 : e.References - count;
            _store.RemoveIfUnused(index);
        }
    }

    /// <summary>
    /// Takes over what a change made of an inode on an overlay: the first one copies it up, which may give it another number.
    /// </summary>
    public void Refresh(in InodePin pin, in Libc.statx_t stat)
    {
        if (!pin.IsOverlay)
        {
            return;
        }

        lock (_store.Gate)
        {
            ref InodeEntry e = ref _store.Slots.Entry(pin.Index);
            InodeKey key = new(stat, e.Key.Rights);
            e.Birth = InodeEntry.BirthOf(stat);
            if (e.IsHashed && key != e.Key with { Link = 0 })
            {
                _store.Keys.Remove(pin.Index);
                e.Key = key;
                e.Links = LinkKind.Unknown;
                _store.Keys.Add(pin.Index);
            }
        }
    }

    /// <summary>A handle was opened on a pinned inode, whose descriptor stays open with it.</summary>
    public void AddOpen(in InodePin pin)
    {
        lock (_store.Gate)
        {
            _store.Slots.Entry(pin.Index).Opens++;
            _store.Idle.Remove(pin.Index);
        }
    }

    /// <summary>A handle was closed.</summary>
    public void RemoveOpen(ulong nodeId)
    {
        int victim = InodeEntry.None;
        lock (_store.Gate)
        {
            int index = _store.Slots.Find(nodeId);
            if (index < 0)
            {
                return;
            }

            ref InodeEntry e = ref _store.Slots.Entry(index);
            if (e.Opens > 0 && --e.Opens == 0 && e.Fd >= 0)
            {
                victim = _store.Idle.Add(index);
            }
        }

        _store.Close(ref victim);
    }

    /// <summary>The guest has a handle on the inode.</summary>
    public bool IsOpen(ulong nodeId)
    {
        lock (_store.Gate)
        {
            int index = _store.Slots.Find(nodeId);
            return index >= 0 && _store.Slots.Entry(index).Opens > 0;
        }
    }

    /// <summary>Keeps an inode in a full table, or no more; false when there is none.</summary>
    public bool SetWatched(ulong nodeId, bool watched)
    {
        lock (_store.Gate)
        {
            int index = _store.Slots.Find(nodeId);
            if (index >= 0)
            {
                _store.Slots.Entry(index).IsWatched = watched;
            }

            return index >= 0;
        }
    }

    /// <summary>
    /// Closes the descriptors of files that were not used since the last call: they would keep the blocks of a file that the
    /// host removed. Folders, which hold little, and sockets and FIFOs, whose other end is in the guest, keep theirs.
    /// </summary>
    /// <returns>There are files left for the next call.</returns>
    public bool CloseIdleFiles()
    {
        Span<int> closing = stackalloc int[CloseAtOnce];
        bool left = false;
        for (int position = 0; ;)
        {
            int count;
            lock (_store.Gate)
            {
                count = _store.Idle.TakeUnused(closing, ref position, ref left);
            }

            if (count == 0)
            {
                return left;
            }

            // Outside the lock: the last descriptor of a removed file frees its blocks.
            for (int i = 0; i < count; i++)
            {
                _store.Close(ref closing[i]);
            }
        }
    }

    /// <inheritdoc cref="IdleDescriptors.OnFiles"/>
    public void OnIdleFiles(Action? notify)
    {
        lock (_store.Gate)
        {
            _store.Idle.OnFiles(notify);
        }
    }

    /// <summary>Has <paramref name="notify"/> called with the node id of a socket that the guest knows no more, or whose export is gone.</summary>
    public void OnSocketClosed(Action<ulong> notify) => _store.SocketClosed = notify;

    /// <inheritdoc cref="FdTable{T}.CloseUnreachable"/>
    public bool CloseUnreachable(int timeoutMilliseconds) => _store.CloseUnreachable(timeoutMilliseconds);

    /// <inheritdoc cref="FdTable{T}.Clear"/>
    public void Clear() => _store.Clear();

    /// <inheritdoc/>
    public void Dispose() => _store.Dispose();
}
