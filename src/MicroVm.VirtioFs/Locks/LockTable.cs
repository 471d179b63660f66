using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Descriptors;
using MicroVm.VirtioFs.Handles;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;

namespace MicroVm.VirtioFs.Locks;

/// <summary>
/// The guest's locks of fcntl(2). Each owner has a descriptor of the file of its own, on which the host holds its ranges as
/// open-file-description locks (F_OFD_SETLK): other VMs and the host's processes are excluded, and the end of this process
/// releases them. What this VM holds is known here, too, for the answer to GETLK and for deadlocks. Any thread.
/// </summary>
internal sealed class LockTable : IDisposable
{
    /// <summary>Most pairs of a file and an owner that hold locks at once; then ENOLCK.</summary>
    public const int MaxOwners = 1024;

    /// <summary>Most locked ranges that locks make; then ENOLCK.</summary>
    public const int MaxRanges = 8192;

    /// <summary>
    /// Most ranges in all. What is above <see cref="MaxRanges"/> is kept for unlocks that cut a range in two: only these need room, and
    /// only these can answer ENOLCK, as the host's own do where it has no memory.
    /// </summary>
    public const int MaxRangesAfterUnlocks = 2 * MaxRanges;

    private readonly Lock _gate = new();
    private readonly SafeFd _procSelfFd;
    private readonly FdBudget _budget;
    private readonly SlotTable<Entry> _owners = new(0);
    private readonly LockRanges _ranges = new();
    private int _releases;

    /// <summary>Makes an empty table.</summary>
    /// <param name="procSelfFd">/proc/self/fd, borrowed.</param>
    /// <param name="budget">Pays for the owners' descriptors.</param>
    public LockTable(SafeFd procSelfFd, FdBudget budget)
    {
        _procSelfFd = procSelfFd;
        _budget = budget;
    }

    /// <summary>How many ranges are locked.</summary>
    public int Count
    {
        get
        {
            lock (_gate)
            {
                return _ranges.Count;
            }
        }
    }

    /// <summary>Moves whenever a lock was given up, which another may wait for.</summary>
    public int Releases => Volatile.Read(ref _releases);

    /// <summary>Says that a lock which this table does not know, flock(2)'s, was given up.</summary>
    public void NoteRelease() => Interlocked.Increment(ref _releases);

    /// <summary>Takes or gives up a lock without waiting.</summary>
    /// <param name="request">Which.</param>
    /// <param name="handle">The open file by which it is asked for.</param>
    /// <param name="blocker">The owner in this VM that has it; 0 when it is held elsewhere.</param>
    /// <returns>0, -EAGAIN when it is held, or another negative errno.</returns>
    public int Set(in LockRequest request, in HandlePin handle, out ulong blocker)
    {
        blocker = 0;
        lock (_gate)
        {
            int index = Find(request.Node, request.Owner);
            bool unlock = request.Type == Libc.F_UNLCK;
            if (unlock && index < 0)
            {
                return 0;
            }

            if (!(request.Type == Libc.F_WRLCK ? handle.IsWritable : unlock || handle.IsReadable))
            {
                return -(int)Errno.EBADF;
            }

            if (unlock ? _ranges.Count >= MaxRangesAfterUnlocks && _ranges.IsCut(_owners.Entry(index).Ranges, request.Start, request.End)
                : _ranges.Count > MaxRanges - LockRanges.MostAdded)
            {
                return -(int)Errno.ENOLCK;
            }

            if (!unlock && FindConflict(request, out int holder) != LockRanges.None)
            {
                blocker = _owners.Entry(holder).Owner;
                return -(int)Errno.EAGAIN;
            }

            return SetOnHost(index, request, handle);
        }
    }

    /// <summary>Tells a lock that stands in the way of another; F_UNLCK when none does.</summary>
    // Safe: the kernel reads and writes locals of this call only.
    public unsafe int Get(in LockRequest request, in HandlePin handle, out fuse_file_lock found)
    {
        found = default;
        lock (_gate)
        {
            int conflict = FindConflict(request, out int holder);
            if (conflict != LockRanges.None)
            {
                ref LockRanges.Range range = ref _ranges[conflict];
                found = new() { start = (ulong)range.Start, end = (ulong)range.End, type = range.Type, pid = _owners.Entry(holder).Pid };
                return 0;
            }

            int index = Find(request.Node, request.Owner);
            Libc.flock64 probe = Describe(request.Start, request.End, request.Type);
            if (Libc.fcntl(index < 0 ? handle.Fd : _owners.Entry(index).Fd, Libc.F_OFD_GETLK, &probe) != 0)
            {
                return -(int)Check.LastErrno;
            }

            // The host's process ids mean nothing in the guest.
            found.type = (uint)probe.l_type;
            if (probe.l_type != Libc.F_UNLCK)
            {
                found.start = (ulong)probe.l_start;
                found.end = probe.l_len == 0 ? long.MaxValue : (ulong)(probe.l_start + probe.l_len - 1);
            }

            return 0;
        }
    }

    /// <summary>Gives up all that an owner has of a file, as when a process closes any descriptor of it.</summary>
    public void ReleaseOwner(ulong node, ulong owner)
    {
        lock (_gate)
        {
            int index = _owners.Count == 0 ? -1 : Find(node, owner);
            if (index >= 0)
            {
                Remove(index);
            }
        }
    }

    /// <summary>Gives up what was locked first by a handle that is closed: locks of an open file, whose owner is that file.</summary>
    public void ReleaseHandle(ulong node, ulong handle)
    {
        lock (_gate)
        {
            for (int i = 0; _owners.Count > 0 && i < _owners.HighWater; i++)
            {
                if (_owners.IsUsed(i) && _owners.Entry(i).Node == node && _owners.Entry(i).Handle == handle)
                {
                    Remove(i);
                }
            }
        }
    }

    /// <summary>Closes the descriptors of files that no export leads to any more.</summary>
    public void CloseUnreachable(InodeTable inodes) => RemoveAll(inodes);

    /// <summary>Gives up everything.</summary>
    public void Clear() => RemoveAll(null);

    /// <inheritdoc/>
    public void Dispose()
    {
        Clear();
        _owners.Dispose();
        _ranges.Dispose();
    }

    private static Libc.flock64 Describe(long start, long end, uint type) => new()
    {
        l_type = (short)type,
        l_whence = Libc.SEEK_SET,
        l_start = start,
        l_len = end == long.MaxValue ? 0 : end - start + 1,
    };

    // Safe: the kernel reads and writes locals of this call only.
    private static unsafe int Lock(int fd, long start, long end, uint type)
    {
        Libc.flock64 range = Describe(start, end, type);
        if (Libc.fcntl(fd, Libc.F_OFD_SETLK, &range) == 0)
        {
            return 0;
        }

        Errno errno = Check.LastErrno;
        return -(int)(errno == Errno.EACCES ? Errno.EAGAIN : errno);
    }

    private int Find(ulong node, ulong owner)
    {
        for (int i = 0; i < _owners.HighWater; i++)
        {
            if (_owners.IsUsed(i) && _owners.Entry(i).Owner == owner && _owners.Entry(i).Node == node)
            {
                return i;
            }
        }

        return -1;
    }

    private int FindConflict(in LockRequest request, out int holder)
    {
        for (holder = 0; holder < _owners.HighWater; holder++)
        {
            if (!_owners.IsUsed(holder))
            {
                continue;
            }

            ref Entry e = ref _owners.Entry(holder);
            int conflict = e.Node == request.Node && e.Owner != request.Owner
                ? _ranges.FindConflict(e.Ranges, request.Start, request.End, request.Type)
                : LockRanges.None;
            if (conflict != LockRanges.None)
            {
                return conflict;
            }
        }

        return LockRanges.None;
    }

    private int SetOnHost(int index, in LockRequest request, in HandlePin handle)
    {
        bool isNew = index < 0;
        int error = isNew ? Add(request, handle, out index)
            : request.Type == Libc.F_WRLCK && !_owners.Entry(index).IsWritable ? MakeWritable(index, handle)
            : 0;
        if (error != 0)
        {
            return error;
        }

        ref Entry e = ref _owners.Entry(index);
        error = Lock(e.Fd, request.Start, request.End, request.Type);
        if (error != 0)
        {
            if (isNew)
            {
                Drop(index);
            }

            return error;
        }

        e.Ranges = _ranges.Set(e.Ranges, request.Start, request.End, request.Type);
        e.Pid = request.Type == Libc.F_UNLCK ? e.Pid : request.Pid;
        if (request.Type != Libc.F_WRLCK)
        {
            NoteRelease();
        }

        if (e.Ranges == LockRanges.None)
        {
            Remove(index);
        }

        return 0;
    }

    private int Add(in LockRequest request, in HandlePin handle, out int index)
    {
        index = -1;
        if (_owners.Count == MaxOwners)
        {
            return -(int)Errno.ENOLCK;
        }

        if (!_budget.TryTake())
        {
            return -(int)Errno.ENFILE;
        }

        int fd = Open(handle, out int error);
        if (fd < 0)
        {
            _budget.Give();
            return error;
        }

        index = _owners.Add();
        _owners.Entry(index) = new Entry
        {
            Node = request.Node,
            Owner = request.Owner,
            Handle = request.Handle,
            Fd = fd,
            IsWritable = handle.IsWritable,
            Ranges = LockRanges.None,
        };
        return 0;
    }

    /// <summary>
    /// Exchanges an owner's descriptor for one that can hold write locks. What the old one holds are read locks, which two
    /// descriptors can have at once: nobody comes in between.
    /// </summary>
    private int MakeWritable(int index, in HandlePin handle)
    {
        int fd = Open(handle, out int error);
        if (fd < 0)
        {
            return error;
        }

        ref Entry e = ref _owners.Entry(index);
        for (int i = e.Ranges; i != LockRanges.None && error == 0; i = _ranges[i].Next)
        {
            error = Lock(fd, _ranges[i].Start, _ranges[i].End, _ranges[i].Type);
        }

        int unneeded = error == 0 ? e.Fd : fd;
        if (error == 0)
        {
            (e.Fd, e.IsWritable) = (fd, true);
        }

        _ = Libc.close(unneeded);
        return error;
    }

    // Safe: the link has room for any descriptor's number; the kernel reads it only.
    private unsafe int Open(in HandlePin handle, out int error)
    {
        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(handle.Fd, link);

        // A file that can only be appended to is opened for nothing else.
        int flags = (handle.IsWritable ? Libc.O_RDWR : Libc.O_RDONLY) | (handle.Flags & Libc.O_APPEND) | Libc.O_CLOEXEC;
        int fd = Libc.openat(_procSelfFd.Value, link, flags, 0);
        error = fd < 0 ? -(int)Check.LastErrno : 0;
        return fd;
    }

    private void Remove(int index)
    {
        Drop(index);
        NoteRelease();
    }

    private void Drop(int index)
    {
        ref Entry e = ref _owners.Entry(index);
        _ = Libc.close(e.Fd);
        _budget.Give();
        _ranges.Clear(e.Ranges);
        _owners.Remove(index);
    }

    private void RemoveAll(InodeTable? unlessReachable)
    {
        lock (_gate)
        {
            for (int i = 0; i < _owners.HighWater; i++)
            {
                if (_owners.IsUsed(i) && unlessReachable?.Names.IsReachable(_owners.Entry(i).Node) != true)
                {
                    Remove(i);
                }
            }
        }
    }

    /// <summary>What an owner holds of a file.</summary>
    internal struct Entry
    {
        public ulong Node;
        public ulong Owner;
        public ulong Handle;
        public int Fd;
        public int Ranges;
        public uint Pid;
        public bool IsWritable;
    }
}
