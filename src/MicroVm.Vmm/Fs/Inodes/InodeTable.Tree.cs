using System.Runtime.InteropServices;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Fs.Descriptors;
using MicroVm.Vmm.Fs.HostFiles;
using MicroVm.Vmm.Fs.Protocol;

namespace MicroVm.Vmm.Fs.Inodes;

/// <content>Names and parents: where an inode is found again, and which export it lies below.</content>
internal sealed unsafe partial class InodeTable
{
    private const int MostBetween = 256;
    private const int MostDepth = 1 << 16;

    /// <summary>Copies the name that led to an inode last.</summary>
    /// <param name="nodeId">The guest's id of it.</param>
    /// <param name="name">Room for <see cref="FuseNames.MaxLength"/> bytes and a NUL.</param>
    /// <returns>The name's length; 0 when there is none.</returns>
    public int CopyNameOf(ulong nodeId, byte* name)
    {
        lock (Gate)
        {
            int index = Slots.Find(nodeId);
            CopyName(index < 0 ? null : Slots.Entry(index)->Name, name);
        }

        return new ReadOnlySpan<byte>(name, FuseNames.MaxLength + 1).IndexOf((byte)0);
    }

    /// <summary>The guest renamed a pinned inode.</summary>
    public void Rename(in InodePin pin, in InodePin parent, byte* name)
    {
        lock (Gate)
        {
            SetName(pin.Index, parent.Index, name);
        }
    }

    /// <summary>
    /// Whether a thread of the guest that opens an inode is to look its path up once more (ESTALE): what the guest still believes of
    /// the name that led there last is not so on the host. The same thread is told once only, for it may have come by
    /// /proc/PID/fd, which has no name to look up.
    /// </summary>
    /// <param name="pin">The inode.</param>
    /// <param name="thread">The guest's number of the thread.</param>
    public bool IsToBeLookedUp(in InodePin pin, uint thread)
    {
        byte* name = stackalloc byte[FuseNames.MaxLength + 1];
        int parent;
        int folder;
        lock (Gate)
        {
            InodeEntry* e = Slots.Entry(pin.Index);
            parent = e->Parent;
            if (e->Export != None || parent == None || e->Name is null || *e->Name == 0)
            {
                return false;
            }

            InodeEntry* above = Slots.Entry(parent);
            if (above->Fd < 0 || above->IsClosing)
            {
                return false;
            }

            above->Pins++;
            folder = above->Fd;
            CopyName(e->Name, name);
        }

        bool known = HostInode.StatChild(folder, name, out Libc.statx_t stat) == 0;
        Unpin(parent);
        lock (Gate)
        {
            InodeEntry* e = Slots.Entry(pin.Index);
            bool leadsHere = known && stat.stx_ino == e->Key.Number && InodeKey.DeviceOf(stat) == e->Key.Device && IsBornWith(e, stat);
            bool isToBe = !leadsHere && e->Doubter != thread;
            e->Doubter = isToBe ? thread : 0;
            return isToBe;
        }
    }

    /// <summary>
    /// Whether two inodes lie below one folder that the guest knows. What does not, lies below different exports, between
    /// which nothing is moved or linked.
    /// </summary>
    public bool AreTogether(in InodePin first, in InodePin second)
    {
        lock (Gate)
        {
            return CommonFolder(first.Index, second.Index) != None;
        }
    }

    /// <summary>
    /// Opens two inodes once more by way of a folder above both, that is, through one mount: rename and link do not cross
    /// mounts, and an inode of two exports is open through that of one of them.
    /// </summary>
    /// <returns>False when no folder is above both, a name leads to something else, or no descriptor is free.</returns>
    public bool TryOpenTogether(in InodePin first, in InodePin second, out int firstFd, out int secondFd)
    {
        firstFd = secondFd = None;
        int common;
        lock (Gate)
        {
            common = CommonFolder(first.Index, second.Index);
            if (common == None)
            {
                return false;
            }

            Slots.Entry(common)->Pins++;
        }

        if (!TryOpenPinned(common, out InodePin pin))
        {
            return false;
        }

        using InodePin pinned = pin;
        firstFd = OpenBelow(pin, first);
        secondFd = firstFd < 0 ? None : OpenBelow(pin, second);
        if (secondFd >= 0)
        {
            return true;
        }

        Close(ref firstFd);
        return false;
    }

    /// <summary>Closes a descriptor of <see cref="TryOpenTogether"/>.</summary>
    public void CloseOpened(int fd) => Close(ref fd);

    /// <summary>
    /// An export was removed. Its root stays when it is another's, or lies below another; what has no export above it any
    /// more is for <see cref="FdTable{T}.CloseUnreachable"/>.
    /// </summary>
    /// <param name="export">Its number.</param>
    /// <param name="other">Gives the number of another export with that root, or <see cref="InodeEntry.None"/>.</param>
    public void RemoveExport(int export, Func<InodeKey, int> other)
    {
        lock (Gate)
        {
            for (int i = 0; i < Slots.HighWater; i++)
            {
                InodeEntry* e = Slots.At(i);
                if (e is not null && e->Export == export)
                {
                    e->Export = other(e->Key);
                    if (e->Export == None && e->Parent != None && e->Pins == 0 && e->Opens == 0)
                    {
                        // Its descriptor is of the export's mount; its parent leads to it through another.
                        Close(ref e->Fd);
                    }
                }
            }
        }
    }

    /// <summary>An export leads to the inode, or led to it when the guest forgot it.</summary>
    public bool IsReachable(ulong nodeId)
    {
        lock (Gate)
        {
            int index = Slots.Find(nodeId);
            return index >= 0 && IsReachable(index);
        }
    }

    /// <summary>The guest has a handle on the inode.</summary>
    public bool IsOpen(ulong nodeId)
    {
        lock (Gate)
        {
            int index = Slots.Find(nodeId);
            return index >= 0 && Slots.Entry(index)->Opens > 0;
        }
    }

    /// <inheritdoc/>
    protected override bool CloseIfUnreachable(int index)
    {
        InodeEntry* e = Slots.Entry(index);
        if (!e->IsClosing && IsReachable(index))
        {
            return true;
        }

        e->IsClosing = true;
        Unhash(index);
        if (e->Pins > 0)
        {
            return false;
        }

        CloseEntry(index);
        return true;
    }

    /// <inheritdoc/>
    protected override void Drop(int index)
    {
        InodeEntry* e = Slots.Entry(index);
        e->References = 0;
        e->Opens = 0;
        RemoveIfUnused(index);
    }

    private bool IsReachable(int index)
    {
        for (int depth = 0; depth < MostDepth && index != None; depth++)
        {
            InodeEntry* e = Slots.Entry(index);
            if (e->Export != None)
            {
                return true;
            }

            index = e->Parent;
        }

        return false;
    }

    /// <summary>The export whose root has <see cref="FreshInode.Place"/>.</summary>
    private static int ExportOf(int place) => None - 1 - place;

    private static uint HashName(int parent, byte* name)
    {
        uint hash = ((uint)parent * 0x9E3779B1) ^ 0x811C9DC5;
        for (; *name != 0; name++)
        {
            hash = (hash ^ *name) * 0x01000193;
        }

        return hash | 1;
    }

    private static void CopyName(byte* from, byte* to)
    {
        int i = 0;
        for (; from is not null && i < FuseNames.MaxLength && from[i] != 0; i++)
        {
            to[i] = from[i];
        }

        to[i] = 0;
    }

    private static bool NameEquals(byte* name, byte* other)
    {
        int i = 0;
        while (name[i] == other[i] && name[i] != 0)
        {
            i++;
        }

        return name[i] == other[i];
    }

    private bool HasName(int index, int parent, byte* name)
    {
        InodeEntry* e = Slots.Entry(index);
        return parent < None ? e->Export == ExportOf(parent) : e->Parent == parent && e->Name is not null && NameEquals(e->Name, name);
    }

    /// <summary>Notes the name that leads to an entry now.</summary>
    private void SetName(int index, int parent, byte* name)
    {
        if (parent < 0 || parent == index || HasName(index, parent, name))
        {
            return;
        }

        InodeEntry* e = Slots.Entry(index);
        int before = e->Parent;
        if (before != parent)
        {
            if (e->Children > 0 && !BreakCycle(index, parent))
            {
                return;
            }

            e->Parent = parent;
            Slots.Entry(parent)->Children++;
        }

        int length = 0;
        while (name[length] != 0)
        {
            length++;
        }

        // An empty one is what a file without a name has: nothing is opened by it.
        e->Name = (byte*)NativeMemory.Realloc(e->Name, (nuint)length + 1);
        CopyName(name, e->Name);
        if (before != parent && before != None)
        {
            Slots.Entry(before)->Children--;
            RemoveIfUnused(before);
        }
    }

    /// <summary>
    /// The host may have moved a folder below one that was below it, and the guest met one of both moves only: no entry may be
    /// above itself.
    /// </summary>
    private bool BreakCycle(int index, int parent)
    {
        int at = parent;
        for (int depth = 0; depth < MostDepth && at != None; depth++)
        {
            InodeEntry* e = Slots.Entry(at);
            if (at == index)
            {
                return false;
            }

            if (e->Parent == index)
            {
                e->Parent = None;
                Slots.Entry(index)->Children--;
                return true;
            }

            at = e->Parent;
        }

        return at == None;
    }

    private int Depth(int index)
    {
        int depth = 0;
        for (; index != None && depth < MostDepth; depth++)
        {
            index = Slots.Entry(index)->Parent;
        }

        return depth;
    }

    private int CommonFolder(int first, int second)
    {
        int firstDepth = Depth(first);
        int secondDepth = Depth(second);
        while (first != second && first != None && second != None)
        {
            bool up = firstDepth >= secondDepth;
            if (up)
            {
                first = Slots.Entry(first)->Parent;
                firstDepth--;
            }
            else
            {
                second = Slots.Entry(second)->Parent;
                secondDepth--;
            }
        }

        return first == second ? first : None;
    }

    /// <summary>Opens an inode below a folder above it, name by name.</summary>
    private int OpenBelow(in InodePin folder, in InodePin inode)
    {
        int* way = stackalloc int[MostBetween];
        byte* name = stackalloc byte[FuseNames.MaxLength + 1];
        int length = 0;
        lock (Gate)
        {
            for (int at = inode.Index; at != folder.Index; at = Slots.Entry(at)->Parent)
            {
                if (at == None || length == MostBetween)
                {
                    length = None;
                    break;
                }

                way[length++] = at;
            }

            for (int i = 0; i < length; i++)
            {
                Slots.Entry(way[i])->Pins++; // keeps the entry and its name's memory
            }
        }

        if (length < 0)
        {
            return None;
        }

        int fd = folder.Fd;
        bool owned = TryTake();
        for (int i = length - 1; i >= 0; i--)
        {
            lock (Gate)
            {
                CopyName(Slots.Entry(way[i])->Name, name);
            }

            int next = owned && fd >= 0 ? HostInode.OpenBeneath(fd, name, Libc.O_PATH, 0) : None;
            if (fd >= 0 && fd != folder.Fd)
            {
                _ = Libc.close(fd);
            }

            fd = next;
            Unpin(way[i]);
        }

        if (length == 0)
        {
            fd = owned ? Libc.fcntl(folder.Fd, Libc.F_DUPFD_CLOEXEC, 0) : None;
        }

        if (fd < 0 && owned)
        {
            Budget.Give();
        }

        if (fd >= 0 && HostInode.Stat(fd, HostInode.StatMask, out Libc.statx_t stat) == 0
            && stat.stx_ino == inode.Key.Number && InodeKey.DeviceOf(stat) == inode.Key.Device)
        {
            return fd;
        }

        Close(ref fd);
        return None;
    }
}
