using System.Runtime.InteropServices;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Fs.Descriptors;
using MicroVm.Vmm.Fs.HostFiles;

namespace MicroVm.Vmm.Fs.Inodes;

/// <summary>
/// The inodes that the guest's kernel holds references to, and the folders above them. Each is known by its
/// <see cref="InodeKey"/> and by the name that led to it last, by which its descriptor is opened again when it is needed.
/// </summary>
/// <remarks>
/// While a descriptor is open it keeps the host from giving the inode's number to another file. While it is closed, the
/// time of birth tells another file from it.
/// </remarks>
internal sealed unsafe partial class InodeTable : FdTable<InodeEntry>
{
    private const uint FirstId = 2; // 1 is FUSE_ROOT_ID, which has no entry
    private const int None = InodeEntry.None;
    private readonly int _mostEntries;
    private int* _buckets;
    private int _bucketMask;
    private int _evictionHand;
    private Action<ulong>? _socketClosed;

    /// <summary>Makes an empty table.</summary>
    /// <param name="budget">What its descriptors count against.</param>
    /// <param name="mostEntries">How many inodes it knows at once; the guest looks up again what had to go.</param>
    public InodeTable(FdBudget budget, int mostEntries)
        : base(FirstId, budget)
    {
        _mostEntries = mostEntries;
        _idle = (int*)NativeMemory.Alloc((nuint)budget.MostIdle, sizeof(int));
        Rehash(256);
    }

    ~InodeTable() => Free();

    /// <summary>
    /// Gives the guest one more reference to the inode that a name leads to, if it is in the table, and notes the name.
    /// </summary>
    /// <param name="key">Which inode, by statx(2) of the name; its rights are the folder's.</param>
    /// <param name="stat">What statx(2) said.</param>
    /// <param name="parent">The folder, pinned.</param>
    /// <param name="name">The name, ended by a NUL.</param>
    /// <returns>Its node id, or 0 when it is not in the table or only its descriptor can tell.</returns>
    public ulong AddReference(in InodeKey key, in Libc.statx_t stat, in InodePin parent, byte* name)
    {
        lock (Gate)
        {
            int index = Find(key, stat, parent.IsOverlay, parent.Index, name, out _);
            return index < 0 ? 0 : Reference(index, parent.Index, name);
        }
    }

    /// <summary>Gives the guest one more reference to an inode that a request has pinned.</summary>
    public ulong AddReference(in InodePin pin)
    {
        lock (Gate)
        {
            return Reference(pin.Index, None, null);
        }
    }

    /// <summary>
    /// Lends the inode in the table that has the number of <paramref name="fresh"/> but another name, where only an
    /// attempt can tell whether both are one (<see cref="OverlayLinks"/>).
    /// </summary>
    /// <returns>False when there is none: <see cref="Insert"/> needs no attempt.</returns>
    public bool TryPinNamesake(scoped in FreshInode fresh, out InodePin pin)
    {
        int candidate;
        lock (Gate)
        {
            pin = default;
            if (Find(fresh.Key, fresh.Stat, fresh.IsOverlay, fresh.Place, fresh.Name, out candidate) >= 0 || candidate < 0
                || Slots.Entry(candidate)->Links != LinkKind.Unknown)
            {
                return false;
            }

            Slots.Entry(candidate)->Pins++;
        }

        return TryOpenPinned(candidate, out pin);
    }

    /// <summary>
    /// Adds an inode with one reference. Takes over the descriptor and the budget's unit for it, also when the inode turns
    /// out to be there already.
    /// </summary>
    /// <param name="fresh">The inode.</param>
    /// <param name="links">What an attempt showed of it and the one with its number in the table.</param>
    /// <returns>Its node id, 0 when there is no room for it.</returns>
    public ulong Insert(in FreshInode fresh, LinkKind links = LinkKind.Separate)
    {
        int fd = fresh.Fd;
        ulong node;
        int victim = None;
        lock (Gate)
        {
            int index = Find(fresh.Key, fresh.Stat, fresh.IsOverlay, fresh.Place, fresh.Name, out int namesake);
            if (namesake >= 0)
            {
                Slots.Entry(namesake)->Links = links;
                index = links == LinkKind.Same ? namesake : None;
            }

            if (index >= 0)
            {
                InodeEntry* known = Slots.Entry(index);
                if (fresh.Export != None && known->Export == None)
                {
                    LeaveIdle(index);
                    known->Export = fresh.Export;
                }

                if (known->Fd < 0)
                {
                    known->Fd = fd;
                    known->MountId = fresh.MountId;
                    fd = None;
                    victim = MakeIdle(index);
                }

                node = Reference(index, fresh.Parent, fresh.Name);
            }
            else
            {
                InodeKey key = fresh.Key;
                if (namesake >= 0)
                {
                    key = key with { Link = HashName(fresh.Place, fresh.Name) };
                }

                index = Add(key, fresh);
                fd = index < 0 ? fd : None;
                victim = index < 0 ? None : MakeIdle(index);
                node = index < 0 ? 0 : Slots.IdOf(index);
            }
        }

        Close(ref fd);
        Close(ref victim);
        return node;
    }

    /// <summary>Lends an inode's descriptor until the pin is disposed of; opens it again when it was closed.</summary>
    /// <returns>False when <paramref name="nodeId"/> names no inode, its export was removed, or its name leads to it no more.</returns>
    public bool TryPin(ulong nodeId, out InodePin pin)
    {
        int index;
        lock (Gate)
        {
            pin = default;
            index = Slots.Find(nodeId);
            InodeEntry* e = index < 0 ? null : Slots.Entry(index);
            if (e is null || e->IsClosing || e->References == 0)
            {
                return false;
            }

            e->Pins++;
            if (e->Fd >= 0)
            {
                e->IsRecent = true;
                pin = new InodePin(this, nodeId, index, e);
                return true;
            }
        }

        return TryOpenPinned(index, out pin);
    }

    /// <summary>Lends the inode that a name leads to, if it is in the table.</summary>
    public bool TryPinKnown(scoped in InodeKey key, scoped in Libc.statx_t stat, scoped in InodePin parent, byte* name, out InodePin pin)
    {
        int index;
        lock (Gate)
        {
            pin = default;
            index = Find(key, stat, parent.IsOverlay, parent.Index, name, out _);
            if (index < 0)
            {
                return false;
            }

            Slots.Entry(index)->Pins++;
        }

        return TryOpenPinned(index, out pin);
    }

    /// <summary>Takes back <paramref name="count"/> references; more than there are takes all. Unknown ids are ignored.</summary>
    public void Forget(ulong nodeId, ulong count)
    {
        lock (Gate)
        {
            int index = Slots.Find(nodeId);
            if (index < 0)
            {
                return;
            }

            InodeEntry* e = Slots.Entry(index);
            e->References = count >= e->References ? 0 : e->References - count;
            RemoveIfUnused(index);
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

        lock (Gate)
        {
            InodeEntry* e = Slots.Entry(pin.Index);
            InodeKey key = new(stat, e->Key.Rights);
            e->Birth = BirthOf(stat);
            if (e->IsHashed && key != e->Key with { Link = 0 })
            {
                Unhash(pin.Index);
                e->Key = key;
                e->Links = LinkKind.Unknown;
                Hash(pin.Index);
            }
        }
    }

    /// <summary>Has <paramref name="notify"/> called with the node id of a socket that the guest knows no more, or whose export is gone.</summary>
    public void OnSocketClosed(Action<ulong> notify) => _socketClosed = notify;

    /// <summary>Whether an inode lies below the root of an export of which <paramref name="isSuch"/> says so.</summary>
    public bool IsBelow(in InodePin pin, Func<int, bool> isSuch) => IsBelow(pin.NodeId, isSuch);

    /// <summary>The same of an inode by its node id.</summary>
    public bool IsBelow(ulong node, Func<int, bool> isSuch)
    {
        lock (Gate)
        {
            int depth = 0;
            for (int at = Slots.Find(node); at != None && depth < MostDepth; depth++)
            {
                InodeEntry* e = Slots.Entry(at);
                if (e->Export != None && isSuch(e->Export))
                {
                    return true;
                }

                at = e->Parent;
            }
        }

        return false;
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        base.Dispose();
        Free();
        GC.SuppressFinalize(this);
    }

    internal void Unpin(int index)
    {
        lock (Gate)
        {
            InodeEntry* e = Slots.Entry(index);
            e->Pins--;
            if (e->Pins == 0)
            {
                if (e->IsClosing)
                {
                    CloseEntry(index);
                    Monitor.PulseAll(Gate);
                }

                RemoveIfUnused(index);
            }
        }
    }

    private static Libc.statx_timestamp BirthOf(in Libc.statx_t stat) =>
        (stat.stx_mask & Libc.STATX_BTIME) != 0 ? stat.stx_btime : default;

    private static bool IsBornWith(InodeEntry* e, in Libc.statx_t stat)
    {
        Libc.statx_timestamp birth = BirthOf(stat);

        // What is a device to the guest may be a marked file, whose mark only a descriptor tells.
        bool sameType = e->Type == (stat.stx_mode & Libc.S_IFMT) || (e->Type is Libc.S_IFCHR or Libc.S_IFBLK && DeviceMark.IsLikely(stat));
        return sameType && e->Birth.tv_sec == birth.tv_sec && e->Birth.tv_nsec == birth.tv_nsec;
    }

    private int Add(in InodeKey key, in FreshInode fresh)
    {
        if (Slots.Count >= _mostEntries && !EvictEntry(fresh.Parent))
        {
            return None;
        }

        if (Slots.Count > _bucketMask)
        {
            Rehash((_bucketMask + 1) * 2);
        }

        int index = Slots.Add();
        InodeEntry* e = Slots.Entry(index);
        e->Key = key;
        e->Fd = fresh.Fd;
        e->MountId = fresh.MountId;
        e->Type = fresh.Stat.stx_mode & Libc.S_IFMT;
        e->Birth = BirthOf(fresh.Stat);
        e->IsOverlay = fresh.IsOverlay;
        e->Export = fresh.Export;
        e->Parent = None;
        e->Slot = None;
        e->References = 1;
        Hash(index);
        SetName(index, fresh.Parent, fresh.Name);
        return index;
    }

    private ulong Reference(int index, int parent, byte* name)
    {
        InodeEntry* e = Slots.Entry(index);
        if (e->References != ulong.MaxValue)
        {
            e->References++;
        }

        e->Doubter = 0;
        SetName(index, parent, name);
        return Slots.IdOf(index);
    }

    /// <summary>The entry of the inode that a name leads to.</summary>
    /// <param name="key">By statx(2) of the name; its link is 0.</param>
    /// <param name="stat">What statx(2) said.</param>
    /// <param name="isOverlay">The name is on an overlay.</param>
    /// <param name="parent">The folder, or <see cref="FreshInode.Place"/>.</param>
    /// <param name="name">The name.</param>
    /// <param name="namesake">An entry of that number and another name, which may be the same inode or not.</param>
    private int Find(in InodeKey key, in Libc.statx_t stat, bool isOverlay, int parent, byte* name, out int namesake)
    {
        namesake = None;
        bool mayBeSeparate = isOverlay && stat.stx_nlink > 1 && (stat.stx_mode & Libc.S_IFMT) != Libc.S_IFDIR;
        if (mayBeSeparate)
        {
            int separate = FindKey(key with { Link = HashName(parent, name) }, stat);
            if (separate >= 0 && HasName(separate, parent, name))
            {
                return separate;
            }
        }

        int index = FindKey(key, stat);
        if (index < 0 || !mayBeSeparate || Slots.Entry(index)->Links == LinkKind.Same || HasName(index, parent, name))
        {
            return index;
        }

        namesake = index;
        return None;
    }

    private int FindKey(in InodeKey key, in Libc.statx_t stat)
    {
        for (int i = *Bucket(key); i != None;)
        {
            InodeEntry* e = Slots.Entry(i);
            int next = e->Next;
            if (e->Key == key)
            {
                if (e->Fd >= 0 || IsBornWith(e, stat))
                {
                    return i;
                }

                // Its number was given to another inode, so that it is gone from the host.
                Unhash(i);
            }

            i = next;
        }

        return None;
    }

    private void RemoveIfUnused(int index)
    {
        while (index != None)
        {
            InodeEntry* e = Slots.Entry(index);
            if (e->References > 0 || e->Pins > 0 || e->Children > 0)
            {
                return;
            }

            int parent = e->Parent;
            Remove(index);
            index = parent;
        }
    }

    /// <summary>Takes an entry out, and from among its parent's children.</summary>
    private void Remove(int index)
    {
        InodeEntry* e = Slots.Entry(index);
        Unhash(index);
        CloseEntry(index);
        NativeMemory.Free(e->Name);
        if (e->Parent != None)
        {
            Slots.Entry(e->Parent)->Children--;
        }

        Slots.Remove(index);
    }

    private int* Bucket(in InodeKey key) => _buckets + (key.GetHashCode() & _bucketMask);

    private void Hash(int index)
    {
        InodeEntry* e = Slots.Entry(index);
        int* bucket = Bucket(e->Key);
        e->Next = *bucket;
        e->IsHashed = true;
        *bucket = index;
    }

    private void Unhash(int index)
    {
        InodeEntry* e = Slots.Entry(index);
        if (!e->IsHashed)
        {
            return;
        }

        int* link = Bucket(e->Key);
        while (*link != index)
        {
            link = &Slots.Entry(*link)->Next;
        }

        *link = e->Next;
        e->IsHashed = false;
    }

    private void Rehash(int size)
    {
        _buckets = (int*)NativeMemory.Realloc(_buckets, (nuint)size * sizeof(int));
        _bucketMask = size - 1;
        new Span<int>(_buckets, size).Fill(None);
        for (int i = 0; i < Slots.HighWater; i++)
        {
            InodeEntry* e = Slots.At(i);
            if (e is not null && e->IsHashed)
            {
                int* bucket = Bucket(e->Key);
                e->Next = *bucket;
                *bucket = i;
            }
        }
    }

    private void Free()
    {
        NativeMemory.Free(_buckets);
        NativeMemory.Free(_idle);
        _buckets = null;
        _idle = null;
    }
}
