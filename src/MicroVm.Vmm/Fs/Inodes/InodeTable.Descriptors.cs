using MicroVm.Linux.Native;
using MicroVm.Vmm.Fs.HostFiles;
using MicroVm.Vmm.Fs.Protocol;

namespace MicroVm.Vmm.Fs.Inodes;

/// <content>
/// Which inodes have a descriptor: those that requests use, those that the guest has open, the exports' roots, and a bounded
/// number of idle ones. The others are opened again by parent and name.
/// </content>
internal sealed unsafe partial class InodeTable
{
    // A guest makes deep trees, and the way to an inode is walked once for each closed folder on it.
    private const int MostClosedFolders = 4096;
    private const int CloseAtOnce = 128;
    private const int EvictionProbes = 4096;

    // Entries with a descriptor that may be closed, in no order; a hand goes round them.
    private int* _idle;
    private int _idleCount;
    private int _idleHand;
    private Action? _notifyIdle;
    private bool _isNotified;

    /// <summary>Inodes that have a descriptor although the guest has no handle on them.</summary>
    public int IdleCount
    {
        get
        {
            lock (Gate)
            {
                return _idleCount;
            }
        }
    }

    /// <summary>Has <paramref name="notify"/> called when the first of files gets a descriptor that may be closed.</summary>
    public void OnIdleFiles(Action? notify)
    {
        lock (Gate)
        {
            _notifyIdle = notify;
            _isNotified = false;
        }
    }

    /// <summary>Takes a unit of the budget for a descriptor; where none is left, that of an idle inode, which is closed.</summary>
    public bool TryTake()
    {
        if (Budget.TryTake())
        {
            return true;
        }

        int victim;
        lock (Gate)
        {
            victim = TakeVictim();
        }

        Close(ref victim);
        return Budget.TryTake();
    }

    /// <summary>A handle was opened on a pinned inode, whose descriptor stays open with it.</summary>
    public void AddOpen(in InodePin pin)
    {
        lock (Gate)
        {
            Slots.Entry(pin.Index)->Opens++;
            LeaveIdle(pin.Index);
        }
    }

    /// <summary>Keeps an inode in a full table, or no more; false when there is none.</summary>
    public bool SetWatched(ulong nodeId, bool watched)
    {
        lock (Gate)
        {
            int index = Slots.Find(nodeId);
            if (index >= 0)
            {
                Slots.Entry(index)->IsWatched = watched;
            }

            return index >= 0;
        }
    }

    /// <summary>A handle was closed.</summary>
    public void RemoveOpen(ulong nodeId)
    {
        int victim = None;
        lock (Gate)
        {
            int index = Slots.Find(nodeId);
            InodeEntry* e = index < 0 ? null : Slots.Entry(index);
            if (e is not null && e->Opens > 0 && --e->Opens == 0 && e->Fd >= 0)
            {
                victim = MakeIdle(index);
            }
        }

        Close(ref victim);
    }

    /// <summary>
    /// Closes the descriptors of files that were not used since the last call: they would keep the blocks of a file that the
    /// host removed. Folders, which hold little, and sockets and FIFOs, whose other end is in the guest, keep theirs.
    /// </summary>
    /// <returns>There are files left for the next call.</returns>
    public bool CloseIdleFiles()
    {
        int* closing = stackalloc int[CloseAtOnce];
        bool left = false;
        for (int position = 0; ;)
        {
            int count = 0;
            lock (Gate)
            {
                while (position < _idleCount && count < CloseAtOnce)
                {
                    int index = _idle[position];
                    InodeEntry* e = Slots.Entry(index);
                    bool isFile = e->Type is Libc.S_IFREG or Libc.S_IFLNK;
                    if (isFile && e->Pins == 0 && !e->IsRecent)
                    {
                        LeaveIdle(index); // the last one takes its place
                        closing[count++] = e->Fd;
                        e->Fd = None;
                        continue;
                    }

                    left |= isFile;
                    e->IsRecent &= !isFile;
                    position++;
                }

                _isNotified &= left || count > 0;
            }

            if (count == 0)
            {
                return left;
            }

            // Outside the lock: the last descriptor of a removed file frees its blocks.
            for (int i = 0; i < count; i++)
            {
                Close(ref closing[i]);
            }
        }
    }

    /// <summary>Opens a pinned inode's descriptor if it is closed.</summary>
    /// <returns>False, and the pin given back, when its name leads to it no more, or no descriptor is free.</returns>
    private bool TryOpenPinned(int index, out InodePin pin)
    {
        pin = default;
        while (true)
        {
            int lowest;
            int parent;
            lock (Gate)
            {
                InodeEntry* e = Slots.Entry(index);
                if (e->IsClosing)
                {
                    break;
                }

                if (e->Fd >= 0)
                {
                    e->IsRecent = true;
                    pin = new InodePin(this, Slots.IdOf(index), index, e);
                    return true;
                }

                lowest = PinHighestClosed(index, out parent);
            }

            if (lowest == None)
            {
                break;
            }

            bool opened = TryOpenByName(lowest, parent);
            Unpin(lowest);
            Unpin(parent);
            if (!opened)
            {
                break;
            }
        }

        Unpin(index);
        return false;
    }

    /// <summary>
    /// The highest folder on the way to an inode whose descriptor is closed, or the inode itself, with a pin; its parent has
    /// a descriptor, and a pin as well. <see cref="None"/>: no open folder is above it.
    /// </summary>
    private int PinHighestClosed(int index, out int folder)
    {
        folder = None;
        for (int depth = 0; depth < MostClosedFolders; depth++)
        {
            InodeEntry* e = Slots.Entry(index);
            if (e->Parent == None || e->IsClosing)
            {
                return None;
            }

            InodeEntry* parent = Slots.Entry(e->Parent);
            if (parent->Fd >= 0 && !parent->IsClosing)
            {
                e->Pins++;
                parent->Pins++;
                parent->IsRecent = true;
                folder = e->Parent;
                return index;
            }

            index = e->Parent;
        }

        return None;
    }

    /// <summary>Opens a pinned inode below its parent, which is pinned as well.</summary>
    private bool TryOpenByName(int index, int parent)
    {
        byte* name = stackalloc byte[FuseNames.MaxLength + 1];
        int folder;
        lock (Gate)
        {
            folder = Slots.Entry(parent)->Fd;
            CopyName(Slots.Entry(index)->Name, name);
        }

        bool opened = false;
        if (TryTake())
        {
            int fd = HostInode.OpenBeneath(folder, name, Libc.O_PATH, 0);
            if (fd < 0)
            {
                Budget.Give();
            }

            opened = fd >= 0 && Adopt(index, fd);
        }

        return opened;
    }

    /// <summary>Gives an inode the descriptor that was opened for it, if it is this inode.</summary>
    private bool Adopt(int index, int fd)
    {
        int victim = None;
        bool same = HostInode.Stat(fd, HostInode.StatMask, out Libc.statx_t stat) == 0;
        lock (Gate)
        {
            InodeEntry* e = Slots.Entry(index);
            same = same && stat.stx_ino == e->Key.Number && InodeKey.DeviceOf(stat) == e->Key.Device && IsBornWith(e, stat);
            if (same && e->Fd < 0 && !e->IsClosing)
            {
                e->Fd = fd;
                e->MountId = (stat.stx_mask & Libc.STATX_MNT_ID) != 0 ? stat.stx_mnt_id : 0;
                fd = None;
                victim = MakeIdle(index);
            }
        }

        Close(ref fd);
        Close(ref victim);
        return same;
    }

    /// <summary>Counts an entry with a descriptor among the idle ones.</summary>
    /// <returns>A descriptor to be closed for it, or <see cref="None"/>.</returns>
    private int MakeIdle(int index)
    {
        InodeEntry* e = Slots.Entry(index);
        if (e->Export != None || e->Opens > 0 || e->Slot != None)
        {
            return None;
        }

        int victim = None;
        if (_idleCount == Budget.MostIdle)
        {
            victim = TakeVictim();
        }

        e->IsRecent = true;
        if (_idleCount < Budget.MostIdle)
        {
            e->Slot = _idleCount;
            _idle[_idleCount++] = index;
        }

        if (!_isNotified && _notifyIdle is not null && (e->Type is Libc.S_IFREG or Libc.S_IFLNK))
        {
            _isNotified = true;
            _notifyIdle();
        }

        return victim;
    }

    /// <summary>Takes the descriptor of an idle entry that was not used lately; the second time round, of any.</summary>
    private int TakeVictim()
    {
        for (int i = 0; i < 3 * _idleCount; i++)
        {
            _idleHand = _idleHand + 1 < _idleCount ? _idleHand + 1 : 0;
            int index = _idle[_idleHand];
            InodeEntry* e = Slots.Entry(index);
            if (e->Pins == 0 && !e->IsRecent)
            {
                int fd = e->Fd;
                e->Fd = None;
                LeaveIdle(index);
                return fd;
            }

            e->IsRecent = false;
        }

        return None;
    }

    private void LeaveIdle(int index)
    {
        InodeEntry* e = Slots.Entry(index);
        if (e->Slot == None)
        {
            return;
        }

        int last = _idle[--_idleCount];
        _idle[e->Slot] = last;
        Slots.Entry(last)->Slot = e->Slot;
        e->Slot = None;
    }

    private void CloseEntry(int index)
    {
        LeaveIdle(index);
        Close(ref Slots.Entry(index)->Fd);
        if (Slots.Entry(index)->Type == Libc.S_IFSOCK)
        {
            _socketClosed?.Invoke(Slots.IdOf(index));
        }
    }

    /// <summary>
    /// Makes room in a full table: of entries that nothing needs, files go first, which the guest looks up again by their
    /// names. Never <paramref name="kept"/>, sockets or FIFOs.
    /// </summary>
    private bool EvictEntry(int kept)
    {
        int folder = None;
        for (int i = 0; i < EvictionProbes; i++)
        {
            _evictionHand = _evictionHand + 1 < Slots.HighWater ? _evictionHand + 1 : 0;
            InodeEntry* e = Slots.At(_evictionHand);
            if (e is null || e->Pins > 0 || e->Opens > 0 || e->Children > 0 || e->Export != None || e->IsWatched || _evictionHand == kept)
            {
                continue;
            }

            if (e->Type is Libc.S_IFREG or Libc.S_IFLNK)
            {
                Evict(_evictionHand);
                return true;
            }

            folder = e->Type == Libc.S_IFDIR ? _evictionHand : folder;
        }

        if (folder != None)
        {
            Evict(folder);
        }

        return folder != None;
    }

    private void Evict(int index)
    {
        int parent = Slots.Entry(index)->Parent;
        Remove(index);
        RemoveIfUnused(parent);
    }
}
