using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Memory;
using MicroVm.VirtioFs.HostFiles;

namespace MicroVm.VirtioFs.Dax;

/// <summary>
/// The DAX window of a virtio-fs device (virtio 1.2, 5.11.6.4): guest physical addresses, beside RAM, at which the guest has
/// parts of files mapped. It sees the host's page cache there. Slots of one length, each mapped or not: what
/// the guest can make the host keep is bounded. Any thread.
/// </summary>
/// <remarks>
/// A file may lose pages that are mapped. An access of this process to them would be a SIGBUS: nothing here reads or writes the
/// window, and other code only hands its addresses to system calls. A vCPU's access makes KVM_RUN fail with EFAULT, or, with asynchronous
/// page faults, run into the same fault again and again. <see cref="TryRepair"/> and, from time to time, <see cref="ReplaceLost"/> put zero
/// pages there, and <see cref="RestoreGrown"/> the file's again once it has grown.
/// </remarks>
public sealed class DaxWindow : IGuestWindow, IDisposable
{
    /// <summary>log2 of <see cref="SlotLength"/>, the alignment that INIT tells the guest.</summary>
    public const int SlotShift = 21;

    /// <summary>Length of a slot: what Linux maps at once (FUSE_DAX_SZ), 2 MiB.</summary>
    public const ulong SlotLength = 1ul << SlotShift;

    /// <summary>Longest window. Each slot has a descriptor, which the VMM's reserve of them must hold.</summary>
    public const ulong MaxLength = 256ul << 20;

    private const int Fixed = Libc.MAP_FIXED | Libc.MAP_NORESERVE;
    private readonly Lock _gate = new();
    private readonly DaxSlot[] _slots;
    private readonly unsafe void* _reserved;
    private readonly unsafe byte* _start;
    private int _mapped;
    private int _zeroed;
    private bool _disposed;

    /// <summary>Reserves addresses of this process; nothing is mapped.</summary>
    /// <param name="length">Bytes: a multiple of <see cref="SlotLength"/>, at most <see cref="MaxLength"/>.</param>
    /// <exception cref="LinuxException">The process has not so many addresses.</exception>
    // Safe: the reservation is one slot longer than the window, so that the aligned window lies within it.
    public unsafe DaxWindow(ulong length)
    {
        ArgumentOutOfRangeException.ThrowIfZero(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, MaxLength);
        ArgumentOutOfRangeException.ThrowIfNotEqual(length % SlotLength, 0ul, nameof(length));
        Length = length;
        _slots = new DaxSlot[length / SlotLength];
        _slots.AsSpan().Fill(new DaxSlot { Fd = -1 });
        _reserved = Libc.mmap(
            null, (nuint)(length + SlotLength), Libc.PROT_NONE, Libc.MAP_PRIVATE | Libc.MAP_ANONYMOUS | Libc.MAP_NORESERVE, -1, 0);
        if ((nint)_reserved == -1)
        {
            Check.Throw("mmap", "the DAX window");
        }

        // Aligned as in the guest, so that huge pages of a file can be huge there.
        _start = (byte*)(((nuint)_reserved + (nuint)SlotLength - 1) & ~((nuint)SlotLength - 1));
    }

    /// <summary>Length in bytes.</summary>
    public ulong Length { get; }

    /// <summary>First address in this process.</summary>
    // Safe: the address is handed out, not followed.
    public unsafe nint Address => (nint)_start;

    /// <summary>Slots in which a file is mapped.</summary>
    public int MappedCount => Volatile.Read(ref _mapped);

    /// <summary>Zero pages stand somewhere in the place of a file's: <see cref="RestoreGrown"/> has something to look at.</summary>
    public bool HasZeroPages => Volatile.Read(ref _zeroed) != 0;

    /// <summary>Whether [<paramref name="offset"/>, + <paramref name="length"/>) is one or more whole slots.</summary>
    public bool AreSlots(ulong offset, ulong length) =>
        length != 0 && ((offset | length) & (SlotLength - 1)) == 0 && offset < Length && length <= Length - offset;

    /// <summary>Maps a part of a file in the place of what a slot has.</summary>
    /// <param name="offset">The slot's first byte in the window.</param>
    /// <param name="nodeId">The guest's id of the file.</param>
    /// <param name="fd">The file, open for what the guest may do; taken over.</param>
    /// <param name="fileOffset">First byte in the file: a multiple of <see cref="SlotLength"/>.</param>
    /// <param name="writable">The guest may write.</param>
    /// <returns>Why not. The slot has nothing mapped then.</returns>
    public Errno Map(ulong offset, ulong nodeId, int fd, ulong fileOffset, bool writable)
    {
        if (!AreSlots(offset, SlotLength) || fileOffset % SlotLength != 0 || fileOffset > long.MaxValue - SlotLength)
        {
            _ = Libc.close(fd);
            return Errno.EINVAL;
        }

        lock (_gate)
        {
            int index = (int)(offset / SlotLength);
            Forget(index);
            DaxSlot slot = new() { Fd = fd, NodeId = nodeId, FileOffset = fileOffset, IsWritable = writable, ZeroFrom = SlotLength };
            if (!MapFile(index, slot, 0, out Errno error))
            {
                _ = Libc.close(fd);
                Reserve(index, 1);
                return error;
            }

            slot.KnownLength = LengthOf(slot);
            _slots[index] = slot;
            _mapped++;
            return Errno.OK;
        }
    }

    /// <summary>Takes away what the slots of a range have mapped.</summary>
    /// <returns>False, with nothing done, when the range is not whole slots of the window.</returns>
    public bool TryUnmap(ulong offset, ulong length)
    {
        if (!AreSlots(offset, length))
        {
            return false;
        }

        lock (_gate)
        {
            int first = (int)(offset / SlotLength);
            int count = (int)(length / SlotLength);
            Reserve(first, count);
            for (int i = first; i < first + count; i++)
            {
                Forget(i);
            }
        }

        return true;
    }

    /// <summary>Takes away everything that is mapped.</summary>
    public void Clear() => _ = TryUnmap(0, Length);

    /// <summary>
    /// Takes away what is mapped of the files that <paramref name="isGone"/> names by their ids. The guest, which does not know,
    /// finds zero pages there until it takes the mapping away.
    /// </summary>
    public void UnmapWhere(Func<ulong, bool> isGone)
    {
        ArgumentNullException.ThrowIfNull(isGone);
        lock (_gate)
        {
            for (int i = 0; i < _slots.Length; i++)
            {
                if (_slots[i].Fd >= 0 && isGone(_slots[i].NodeId))
                {
                    _ = MapZeros(i, 0, SlotLength);
                    Forget(i);
                }
            }
        }
    }

    /// <summary>Takes away what is mapped of files that have no name any more and that <paramref name="isUnused"/> names.</summary>
    public void UnmapRemoved(Func<ulong, bool> isUnused)
    {
        ArgumentNullException.ThrowIfNull(isUnused);
        lock (_gate)
        {
            for (int i = 0; i < _slots.Length; i++)
            {
                ref DaxSlot slot = ref _slots[i];
                if (slot.Fd >= 0 && HostInode.Stat(slot.Fd, Libc.STATX_BASIC_STATS, out Libc.statx_t stat) == 0
                    && stat.stx_nlink == 0 && isUnused(slot.NodeId))
                {
                    _ = MapZeros(i, 0, SlotLength);
                    Forget(i);
                }
            }
        }
    }

    /// <inheritdoc/>
    /// <remarks>
    /// KVM does not say which page it was. First those files are looked at that are shorter than they were; else all slots get
    /// zero pages behind the end of their file.
    /// </remarks>
    public bool TryRepair()
    {
        lock (_gate)
        {
            return !_disposed && (ZeroLost(shrunkOnly: true) || ZeroLost(shrunkOnly: false));
        }
    }

    /// <summary>
    /// Puts zero pages behind the ends of files. Also of those that have not become shorter since they were mapped: a guest that has not
    /// heard of the new size yet may have mapped the file just now.
    /// </summary>
    public void ReplaceLost()
    {
        lock (_gate)
        {
            if (_mapped > 0)
            {
                _ = ZeroLost(shrunkOnly: false);
            }
        }
    }

    /// <summary>
    /// Maps files' pages again where zero pages stand and the file has grown since. Called before the guest is told anything from
    /// which it may know that.
    /// </summary>
    public void RestoreGrown()
    {
        lock (_gate)
        {
            for (int i = 0; i < _slots.Length && _zeroed > 0; i++)
            {
                ref DaxSlot slot = ref _slots[i];
                if (slot.Fd < 0 || slot.ZeroFrom == SlotLength)
                {
                    continue;
                }

                ulong length = LengthOf(slot);
                if (length > slot.ZeroFrom && MapFile(i, slot, slot.ZeroFrom, out _))
                {
                    slot.ZeroFrom = SlotLength;
                    slot.KnownLength = length;
                    _zeroed--;
                }
            }
        }
    }

    /// <summary>Unmaps the window. No vCPU may be running.</summary>
    // Safe: unmaps the whole reservation, once.
    public unsafe void Dispose()
    {
        lock (_gate)
        {
            if (!_disposed)
            {
                _disposed = true;
                for (int i = 0; i < _slots.Length; i++)
                {
                    Forget(i);
                }

                _ = Libc.munmap(_reserved, (nuint)(Length + SlotLength));
            }
        }
    }

    // Safe: callers have an index below the number of slots.
    private unsafe byte* AddressOf(int index) => _start + ((ulong)index * SlotLength);

    private bool ZeroLost(bool shrunkOnly)
    {
        bool changed = false;
        for (int i = 0; i < _slots.Length; i++)
        {
            ref DaxSlot slot = ref _slots[i];
            ulong length = slot.Fd < 0 ? SlotLength : LengthOf(slot);
            if (length >= slot.ZeroFrom || (shrunkOnly && length >= slot.KnownLength))
            {
                slot.KnownLength = Math.Max(slot.KnownLength, length);
                continue;
            }

            if (MapZeros(i, length, slot.ZeroFrom))
            {
                _zeroed += slot.ZeroFrom == SlotLength ? 1 : 0;
                slot.ZeroFrom = length;
                changed = true;
            }
        }

        return changed;
    }

    /// <summary>Bytes of the slot that its file has, in whole pages; a file that cannot be asked any more has none.</summary>
    private static ulong LengthOf(in DaxSlot slot)
    {
        // The descriptor is the slot's own, and so its position. A vCPU's thread may call this, but not statx(2).
        long end = Libc.lseek(slot.Fd, 0, Libc.SEEK_END);
        ulong pages = end <= 0 ? 0 : ((ulong)end + GuestMemory.PageSize - 1) & ~(GuestMemory.PageSize - 1ul);
        return pages <= slot.FileOffset ? 0 : Math.Min(pages - slot.FileOffset, SlotLength);
    }

    // Safe: the mapping ends with its slot, which lies in the reservation.
    private unsafe bool MapFile(int index, in DaxSlot slot, ulong from, out Errno error)
    {
        int protection = Libc.PROT_READ | (slot.IsWritable ? Libc.PROT_WRITE : 0);
        void* p = Libc.mmap(
            AddressOf(index) + from, (nuint)(SlotLength - from), protection, Libc.MAP_SHARED | Fixed, slot.Fd, (long)(slot.FileOffset + from));
        error = (nint)p == -1 ? Check.LastErrno : Errno.OK;
        return (nint)p != -1;
    }

    // Safe: as for MapFile.
    private unsafe bool MapZeros(int index, ulong from, ulong to) => (nint)Libc.mmap(
        AddressOf(index) + from, (nuint)(to - from), Libc.PROT_READ | Libc.PROT_WRITE, Libc.MAP_PRIVATE | Libc.MAP_ANONYMOUS | Fixed, -1, 0) != -1;

    // Safe: callers have checked that the slots are the window's.
    private unsafe void Reserve(int first, int count)
    {
        // Without memory for that the old mapping stays, which the guest has had anyway.
        _ = Libc.mmap(
            AddressOf(first), (nuint)count * (nuint)SlotLength, Libc.PROT_NONE, Libc.MAP_PRIVATE | Libc.MAP_ANONYMOUS | Fixed, -1, 0);
    }

    private void Forget(int index)
    {
        ref DaxSlot slot = ref _slots[index];
        if (slot.Fd >= 0)
        {
            _ = Libc.close(slot.Fd);
            _mapped--;
            _zeroed -= slot.ZeroFrom == SlotLength ? 0 : 1;
            slot = new DaxSlot { Fd = -1 };
        }
    }
}
