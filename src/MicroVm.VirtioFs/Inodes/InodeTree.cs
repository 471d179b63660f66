using System.Runtime.InteropServices;
using MicroVm.VirtioFs.Descriptors;
using MicroVm.VirtioFs.Protocol;

namespace MicroVm.VirtioFs.Inodes;

/// <summary>
/// Names and parents of entries: where an inode is found again, and which export it lies below. No entry is above itself. Its owner locks.
/// </summary>
internal sealed class InodeTree(SlotTable<InodeEntry> slots)
{
    private const int MostDepth = 1 << 16;

    /// <summary>Notes the name that leads to an entry now.</summary>
    /// <param name="index">The entry.</param>
    /// <param name="parent">The folder that has the name; below 0: no name is known.</param>
    /// <param name="name">The name, ended by a NUL; empty for a file without one.</param>
    /// <returns>The folder that had the entry before and may be unneeded now, or <see cref="InodeEntry.None"/>.</returns>
    // Safe: both names end in a NUL; the copy has its length and one.
    public unsafe int SetName(int index, int parent, byte* name)
    {
        if (parent < 0 || parent == index || HasName(index, parent, name))
        {
            return InodeEntry.None;
        }

        ref InodeEntry e = ref slots.Entry(index);
        int before = e.Parent;
        if (before != parent)
        {
            if (e.Children > 0 && !BreakCycle(index, parent))
            {
                return InodeEntry.None;
            }

            e.Parent = parent;
            slots.Entry(parent).Children++;
        }

        int length = 0;
        while (name[length] != 0)
        {
            length++;
        }

        // An empty one is what a file without a name has: nothing is opened by it.
        e.Name = (byte*)NativeMemory.Realloc(e.Name, (nuint)length + 1);
        CopyName(name, e.Name);
        if (before == parent || before == InodeEntry.None)
        {
            return InodeEntry.None;
        }

        slots.Entry(before).Children--;
        return before;
    }

    /// <summary>The name led to the entry last; an export's root has <see cref="FreshInode.Place"/> for a parent.</summary>
    // Safe: the name is passed on, not followed.
    public unsafe bool HasName(int index, int parent, byte* name)
    {
        ref InodeEntry e = ref slots.Entry(index);
        return parent < InodeEntry.None ? e.Export == ExportOf(parent) : e.Parent == parent && e.Name is not null && NameEquals(e.Name, name);
    }

    /// <summary>The entry is an export's root or lies below one.</summary>
    public bool IsReachable(int index)
    {
        for (int depth = 0; depth < MostDepth && index != InodeEntry.None; depth++)
        {
            ref InodeEntry e = ref slots.Entry(index);
            if (e.Export != InodeEntry.None)
            {
                return true;
            }

            index = e.Parent;
        }

        return false;
    }

    /// <summary>The entry is, or lies below, the root of an export of which <paramref name="isSuch"/> says so.</summary>
    public bool IsBelow(int index, Func<int, bool> isSuch)
    {
        for (int depth = 0; index != InodeEntry.None && depth < MostDepth; depth++)
        {
            ref InodeEntry e = ref slots.Entry(index);
            if (e.Export != InodeEntry.None && isSuch(e.Export))
            {
                return true;
            }

            index = e.Parent;
        }

        return false;
    }

    /// <summary>Takes an entry that goes out of its folder, and frees its name.</summary>
    // Safe: the name is this tree's, and the entry goes with it.
    public unsafe void Remove(int index)
    {
        ref InodeEntry e = ref slots.Entry(index);
        NativeMemory.Free(e.Name);
        if (e.Parent != InodeEntry.None)
        {
            slots.Entry(e.Parent).Children--;
        }
    }

    /// <summary>The lowest entry that is above both, or one of them; <see cref="InodeEntry.None"/> when there is none.</summary>
    public int CommonFolder(int first, int second)
    {
        int firstDepth = Depth(first);
        int secondDepth = Depth(second);
        while (first != second && first != InodeEntry.None && second != InodeEntry.None)
        {
            bool up = firstDepth >= secondDepth;
            if (up)
            {
                first = slots.Entry(first).Parent;
                firstDepth--;
            }
            else
            {
                second = slots.Entry(second).Parent;
                secondDepth--;
            }
        }

        return first == second ? first : InodeEntry.None;
    }

    /// <summary>A hash of a name in a folder, never 0.</summary>
    // Safe: the name ends in a NUL.
    public static unsafe uint HashName(int parent, byte* name)
    {
        uint hash = ((uint)parent * 0x9E3779B1) ^ 0x811C9DC5;
        for (; *name != 0; name++)
        {
            hash = (hash ^ *name) * 0x01000193;
        }

        return hash | 1;
    }

    /// <summary>Copies a name with its NUL to room for <see cref="FuseNames.MaxLength"/> bytes and one; null is copied as an empty one.</summary>
    // Safe: the loop ends with the NUL of one or the room of the other.
    public static unsafe void CopyName(byte* from, byte* to)
    {
        int i = 0;
        for (; from is not null && i < FuseNames.MaxLength && from[i] != 0; i++)
        {
            to[i] = from[i];
        }

        to[i] = 0;
    }

    /// <summary>The export whose root has <see cref="FreshInode.Place"/>.</summary>
    private static int ExportOf(int place) => InodeEntry.None - 1 - place;

    // Safe: both names end in a NUL, where the loop ends at the latest.
    private static unsafe bool NameEquals(byte* name, byte* other)
    {
        int i = 0;
        while (name[i] == other[i] && name[i] != 0)
        {
            i++;
        }

        return name[i] == other[i];
    }

    /// <summary>
    /// The host may have moved a folder below one that was below it, and the guest met one of both moves only: no entry may be
    /// above itself.
    /// </summary>
    private bool BreakCycle(int index, int parent)
    {
        int at = parent;
        for (int depth = 0; depth < MostDepth && at != InodeEntry.None; depth++)
        {
            ref InodeEntry e = ref slots.Entry(at);
            if (at == index)
            {
                return false;
            }

            if (e.Parent == index)
            {
                e.Parent = InodeEntry.None;
                slots.Entry(index).Children--;
                return true;
            }

            at = e.Parent;
        }

        return at == InodeEntry.None;
    }

    private int Depth(int index)
    {
        int depth = 0;
        for (; index != InodeEntry.None && depth < MostDepth; depth++)
        {
            index = slots.Entry(index).Parent;
        }

        return depth;
    }
}
