using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Fs.Protocol;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Fs;

/// <content>Opening, making and closing files.</content>
internal sealed unsafe partial class FuseServer
{
    /// <summary>
    /// What the guest's open flags may carry over to the host. Not O_DIRECT, whose alignment rules the guest does not know,
    /// nor O_NONBLOCK, which means nothing for regular files.
    /// </summary>
    private const int PassedFlags =
        Libc.O_ACCMODE | Libc.O_APPEND | Libc.O_TRUNC | Libc.O_SYNC | Libc.O_NOATIME | Libc.O_LARGEFILE;

    /// <summary>The host would allow O_RDONLY | O_TRUNC, so that asking whether a change is meant takes both.</summary>
    private static bool Changes(int flags) => (flags & Libc.O_ACCMODE) != Libc.O_RDONLY || (flags & Libc.O_TRUNC) != 0;

    /// <summary>
    /// A tree that only this guest changes keeps its cached pages over an open, and a close tells the host nothing that
    /// it must know, which saves a request.
    /// </summary>
    private static uint OpenFlags(Export export) =>
        export.Cache == FsCache.Exclusive ? Fuse.FOPEN_KEEP_CACHE | Fuse.FOPEN_NOFLUSH : 0;

    private int Open(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_open_in open))
        {
            return Fail(Errno.EINVAL);
        }

        if (!_inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return r.NodeId == Fuse.FUSE_ROOT_ID ? Fail(Errno.EISDIR) : Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        int error = OpenHandle(r, inode, (int)open.flags, open.open_flags, out fuse_open_out reply);
        return error != 0 ? error : r.Reply(reply);
    }

    private int OpenHandle(FuseRequest r, in InodePin inode, int flags, uint openFlags, out fuse_open_out reply)
    {
        reply = default;
        if (inode.FileType == Libc.S_IFDIR)
        {
            return Fail(Errno.EISDIR);
        }

        flags &= PassedFlags;
        if (_exports[inode.Key.Export] is not { } export)
        {
            return Fail(Errno.ESTALE);
        }

        if (export.ReadOnly && Changes(flags))
        {
            return Fail(Errno.EROFS);
        }

        if (!_budget.TryTake())
        {
            return Fail(Errno.ENFILE);
        }

        if ((flags & Libc.O_TRUNC) != 0)
        {
            r.Credentials.ClearSetIdBits((openFlags & Fuse.FUSE_OPEN_KILL_SUIDGID) != 0);
        }

        int fd = Reopen(inode.Fd, inode.FileType, flags);
        if (fd < 0)
        {
            _budget.Give();
            return fd;
        }

        return AddHandle(export, inode.NodeId, HandleKind.File, fd, flags, inode.Key, out reply);
    }

    /// <summary>Makes the handle for an open descriptor; takes over it and its budget.</summary>
    private int AddHandle(Export export, ulong node, HandleKind kind, int fd, int flags, in InodeKey key, out fuse_open_out reply)
    {
        reply = new fuse_open_out { fh = _handles.Add(node, kind, fd, flags, key), open_flags = OpenFlags(export) };
        if (kind == HandleKind.Directory)
        {
            reply.open_flags = export.Cache == FsCache.Exclusive ? Fuse.FOPEN_KEEP_CACHE | Fuse.FOPEN_CACHE_DIR : 0;
        }

        if (_exports[export.Index] is not null)
        {
            return 0;
        }

        // Removed meanwhile: its handles have been closed, and this one came too late for that.
        _ = _handles.Remove(reply.fh, node, kind != HandleKind.File);
        return Fail(Errno.ESTALE);
    }

    private int Create(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_create_in create))
        {
            return Fail(Errno.EINVAL);
        }

        int error = PinParent(r, sizeof(fuse_create_in), out byte* name, out InodePin parent);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = parent;
        if (_exports[parent.Key.Export] is not { } export)
        {
            return Fail(Errno.ESTALE);
        }

        // Always O_EXCL first: only then is it known that the file is new, and so the guest's user's.
        int flags = (int)create.flags & PassedFlags;
        error = CreateNew(r, parent, name, (flags & ~Libc.O_TRUNC) | Libc.O_CREAT | Libc.O_EXCL, create, out int fd);
        if (error == Fail(Errno.EEXIST) && (create.flags & Libc.O_EXCL) == 0)
        {
            return OpenExisting(r, parent, export, name, create);
        }

        return error != 0 ? error : ReplyCreated(r, export, fd, flags);
    }

    private int CreateUnnamed(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_create_in create))
        {
            return Fail(Errno.EINVAL);
        }

        int error = PinForChange(r.NodeId, out InodePin parent);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = parent;
        if (_exports[parent.Key.Export] is not { } export)
        {
            return Fail(Errno.ESTALE);
        }

        // The request carries a name, which means nothing.
        byte* here = stackalloc byte[2] { (byte)'.', 0 };
        int flags = (int)create.flags & PassedFlags & ~Libc.O_TRUNC;
        int exclusive = (int)create.flags & Libc.O_EXCL;
        error = CreateNew(r, parent, here, flags | exclusive | Libc.O_TMPFILE, create, out int fd);
        return error != 0 ? error : ReplyCreated(r, export, fd, flags);
    }

    /// <summary>Makes a file as the guest's user; takes a unit of the budget for its descriptor.</summary>
    private int CreateNew(FuseRequest r, in InodePin parent, byte* name, int flags, in fuse_create_in create, out int fd)
    {
        fd = -1;
        if (!_budget.TryTake())
        {
            return Fail(Errno.ENFILE);
        }

        r.Credentials.SetUmask(create.umask);
        int error = r.Credentials.Enter(r.Header.uid, r.Header.gid);
        if (error == 0)
        {
            fd = OpenBeneath(parent.Fd, name, flags, create.mode & 0xFFF);
            error = fd < 0 ? Failed() : 0;
            r.Credentials.Leave(r.Header.uid, r.Header.gid);
        }

        if (error != 0)
        {
            _budget.Give();
        }

        return error;
    }

    /// <summary>Answers with the inode and the handle of a file just made; takes over its descriptor and budget.</summary>
    private int ReplyCreated(FuseRequest r, Export export, int fd, int flags)
    {
        // The inode comes from the descriptor, not from the name, which may lead elsewhere by now.
        int path = _budget.TryTake() ? Reopen(fd, Libc.S_IFREG, Libc.O_PATH) : Fail(Errno.ENFILE);
        if (path < 0)
        {
            if (path != Fail(Errno.ENFILE))
            {
                _budget.Give();
            }

            Close(fd);
            return path;
        }

        int error = Adopt(path, export, out Libc.statx_t stat, out ulong node);
        if (error != 0)
        {
            Close(fd);
            return error;
        }

        FillEntry(node, export, stat, out fuse_entry_out entry);
        error = AddHandle(export, node, HandleKind.File, fd, flags, new InodeKey(stat, export.Index), out fuse_open_out open);
        return ReplyEntryAndOpen(r, error, entry, open);
    }

    private int OpenExisting(FuseRequest r, in InodePin parent, Export export, byte* name, in fuse_create_in create)
    {
        int error = LookupChild(parent, export, name, out fuse_entry_out entry);
        if (error != 0)
        {
            return error;
        }

        fuse_open_out open = default;
        if (_inodes.TryPin(entry.nodeid, out InodePin inode))
        {
            using InodePin pinned = inode;
            error = OpenHandle(r, inode, (int)create.flags, create.open_flags, out open);
        }
        else
        {
            error = Fail(Errno.ESTALE);
        }

        return ReplyEntryAndOpen(r, error, entry, open);
    }

    private int ReplyEntryAndOpen(FuseRequest r, int error, in fuse_entry_out entry, in fuse_open_out open)
    {
        if (error != 0)
        {
            _inodes.Forget(entry.nodeid, 1);
            return error;
        }

        // There is room: PayloadLength was checked before anything was done.
        return r.Write(0, entry) && r.Write((ulong)sizeof(fuse_entry_out), open)
            ? sizeof(fuse_entry_out) + sizeof(fuse_open_out)
            : Fail(Errno.EINVAL);
    }

    private void Close(int fd)
    {
        _ = Libc.close(fd);
        _budget.Give();
    }

    private int Release(FuseRequest r, bool directory) =>
        !r.TryRead(0, out fuse_release_in release) ? Fail(Errno.EINVAL)
        : _handles.Remove(release.fh, r.NodeId, directory) ? 0
        : Fail(Errno.EBADF);

    /// <summary>Closing a duplicate brings errors to light that the host's file system keeps for close(2), as NFS does.</summary>
    private int Flush(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_flush_in flush))
        {
            return Fail(Errno.EINVAL);
        }

        if (!_handles.TryPin(flush.fh, r.NodeId, HandleKind.File, out HandlePin handle))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinned = handle;
        int copy = Libc.fcntl(handle.Fd, Libc.F_DUPFD_CLOEXEC, 0);
        return copy < 0 ? Failed() : Result(Libc.close(copy));
    }
}
