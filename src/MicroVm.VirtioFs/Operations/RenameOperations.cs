using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>RENAME and RENAME2.</summary>
internal sealed class RenameOperations(FsContext fs)
{
    // Safe: the size of a struct is asked for, nothing is followed.
    public unsafe int Rename(FuseRequest r) => r.TryRead(0, out fuse_rename_in rename)
        ? Rename(r, sizeof(fuse_rename_in), rename.newdir, 0)
        : Fail(Errno.EINVAL);

    // Safe: the size of a struct is asked for, nothing is followed.
    public unsafe int RenameWithFlags(FuseRequest r)
    {
        const uint Known = Libc.RENAME_NOREPLACE | Libc.RENAME_EXCHANGE | Libc.RENAME_WHITEOUT;
        return r.TryRead(0, out fuse_rename2_in rename) && (rename.flags & ~Known) == 0
            ? Rename(r, sizeof(fuse_rename2_in), rename.newdir, rename.flags)
            : Fail(Errno.EINVAL);
    }

    // Safe: the name lies in the request's own buffer, with its NUL, until the next request.
    private unsafe int Rename(FuseRequest r, int offset, ulong newDirectory, uint flags)
    {
        int error = r.ReadNames(offset, out byte* oldName, out byte* newName);
        if (error != 0)
        {
            return error;
        }

        error = fs.PinForChange(r.NodeId, out InodePin from);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinnedFrom = from;
        error = fs.PinForChange(newDirectory, out InodePin to);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinnedTo = to;
        if (from.Key.Rights != to.Key.Rights || !fs.Inodes.Mounts.AreTogether(from, to))
        {
            return Fail(Errno.EXDEV);
        }

        bool knownOld = TryPinChild(from, oldName, out InodePin moved);
        using InodePin pinnedMoved = moved;
        InodePin exchanged = default;
        bool knownNew = (flags & Libc.RENAME_EXCHANGE) != 0 && TryPinChild(to, newName, out exchanged);
        using InodePin pinnedExchanged = exchanged;
        error = Rename(from, oldName, to, newName, flags);
        if (error != 0)
        {
            return error;
        }

        if (knownOld)
        {
            fs.Inodes.Names.Rename(moved, to, newName);
            fs.RefreshChanged(moved);
            LinkOperations.MarkFolder(moved, to);
        }

        if (knownNew)
        {
            fs.Inodes.Names.Rename(exchanged, from, oldName);
            fs.RefreshChanged(exchanged);
            LinkOperations.MarkFolder(exchanged, from);
        }

        return 0;
    }

    // Safe: the name ends in a NUL and stays for the request; it is only read.
    private unsafe int Rename(in InodePin from, byte* oldName, in InodePin to, byte* newName, uint flags)
    {
        int error = Result(Libc.renameat2(from.Fd, oldName, to.Fd, newName, flags));
        if (error == Fail(Errno.EXDEV) && from.MountId != to.MountId && fs.Inodes.Mounts.TryOpenTogether(from, to, out int first, out int second))
        {
            error = Result(Libc.renameat2(first, oldName, second, newName, flags));
            fs.Inodes.Mounts.CloseOpened(first);
            fs.Inodes.Mounts.CloseOpened(second);
        }

        return error;
    }

    /// <summary>Lends the inode that a name leads to now, if the guest knows it.</summary>
    // Safe: the name is passed on, not followed.
    private unsafe bool TryPinChild(scoped in InodePin parent, byte* name, out InodePin child)
    {
        child = default;
        return HostInode.StatChild(parent.Fd, name, out Libc.statx_t stat) == 0 && EntryLookup.IsOnMountOf(parent, stat)
            && fs.Inodes.TryPinKnown(new InodeKey(stat, parent.Key.Rights), stat, parent, name, out child);
    }
}
