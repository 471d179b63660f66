using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Exports;
using MicroVm.VirtioFs.Handles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>CREATE and TMPFILE: making files and opening them at once.</summary>
internal sealed class CreateOperations(FsContext fs, EntryLookup entries, FileMaker maker, HandleOpener opener)
{
    // Safe: the name lies in the request's own buffer, with its NUL, until the next request.
    public unsafe int Create(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_create_in create))
        {
            return Fail(Errno.EINVAL);
        }

        int error = fs.PinParent(r, sizeof(fuse_create_in), out byte* name, out InodePin parent);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = parent;
        // Always O_EXCL first: only then is it known that the file is new, and so the guest's user's.
        int flags = (int)create.flags & HandleOpener.PassedFlags;
        error = maker.CreateNew(r, parent, name, (flags & ~Libc.O_TRUNC) | Libc.O_CREAT | Libc.O_EXCL, create, out int fd);
        if (error == Fail(Errno.EEXIST) && (create.flags & Libc.O_EXCL) == 0)
        {
            return OpenExisting(r, parent, name, create);
        }

        return error != 0 ? error : ReplyCreated(r, parent, name, fd, flags);
    }

    // Safe: both names are locals of this call, with their NULs.
    public unsafe int CreateUnnamed(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_create_in create))
        {
            return Fail(Errno.EINVAL);
        }

        int error = fs.PinForChange(r.NodeId, out InodePin parent);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = parent;
        // The request carries a name, which means nothing.
        byte* here = stackalloc byte[2] { (byte)'.', 0 };
        int flags = (int)create.flags & HandleOpener.PassedFlags & ~Libc.O_TRUNC;
        int exclusive = (int)create.flags & Libc.O_EXCL;
        byte none = 0;
        error = maker.CreateNew(r, parent, here, flags | exclusive | Libc.O_TMPFILE, create, out int fd);
        return error != 0 ? error : ReplyCreated(r, parent, &none, fd, flags);
    }

    /// <summary>Answers with the inode and the handle of a file just made; takes over its descriptor and the place for the handle.</summary>
    // Safe: the name is passed on, not followed.
    private unsafe int ReplyCreated(FuseRequest r, in InodePin parent, byte* name, int fd, int flags)
    {
        // The inode comes from the descriptor, not from the name, which may lead elsewhere by now.
        int error = Fail(Errno.ENFILE);
        int path = -1;
        if (fs.Inodes.TryTake())
        {
            path = fs.Reopen(fd, Libc.S_IFREG, Libc.O_PATH);
            error = Math.Min(path, 0);
            if (path < 0)
            {
                fs.Budget.Give();
            }
        }

        ExportRules rules = fs.Exports.RulesOf(parent.Key);
        Libc.statx_t stat = default;
        ulong node = 0;
        error = error != 0 ? error : entries.AdoptChild(path, parent, rules, name, out stat, out node);
        if (error == 0 && fs.Inodes.TryPin(node, out InodePin inode))
        {
            using InodePin pinned = inode;
            entries.Fill(node, parent.Key, stat, out fuse_entry_out entry);
            error = opener.AddHandle(inode, HandleKind.File, fd, flags, out fuse_open_out open);
            return ReplyEntryAndOpen(r, error, entry, open);
        }

        _ = Libc.close(fd);
        fs.Handles.Release();
        return error != 0 ? error : Fail(Errno.ESTALE);
    }

    // Safe: the name is passed on, not followed.
    private unsafe int OpenExisting(FuseRequest r, in InodePin parent, byte* name, in fuse_create_in create)
    {
        int error = entries.LookupChild(parent, fs.Exports.RulesOf(parent.Key), name, out fuse_entry_out entry);
        if (error != 0)
        {
            return error;
        }

        fuse_open_out open = default;
        if (fs.Inodes.TryPin(entry.nodeid, out InodePin inode))
        {
            using InodePin pinned = inode;
            error = opener.OpenHandle(r, inode, (int)create.flags, create.open_flags, out open);
        }
        else
        {
            error = Fail(Errno.ESTALE);
        }

        return ReplyEntryAndOpen(r, error, entry, open);
    }

    // Safe: the size of a struct is asked for, nothing is followed.
    private unsafe int ReplyEntryAndOpen(FuseRequest r, int error, in fuse_entry_out entry, in fuse_open_out open)
    {
        if (error != 0)
        {
            fs.Inodes.Forget(entry.nodeid, 1);
            return error;
        }

        // There is room: PayloadLength was checked before anything was done.
        return r.Write(0, entry) && r.Write((ulong)sizeof(fuse_entry_out), open)
            ? sizeof(fuse_entry_out) + sizeof(fuse_open_out)
            : Fail(Errno.EINVAL);
    }
}
