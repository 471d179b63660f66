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
    /// it must know, which saves a request: unless the guest's kernel would leave the file's locks to this side.
    /// </summary>
    private uint OpenFlags(ExportRules rules, HandleKind kind) =>
        rules.Cache != FsCache.Exclusive ? 0
        : Fuse.FOPEN_KEEP_CACHE | (kind == HandleKind.Directory ? Fuse.FOPEN_CACHE_DIR : 0) | (_locksStayInGuest ? Fuse.FOPEN_NOFLUSH : 0);

    private int Open(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_open_in open))
        {
            return Fail(Errno.EINVAL);
        }

        if (!_inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return IsSynthesised(r.NodeId) ? Fail(Errno.EISDIR) : Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        if (inode.FileType == Libc.S_IFREG && _inodes.IsToBeLookedUp(inode, r.Header.pid))
        {
            return Fail(Errno.ESTALE);
        }

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
        if (_exports.RulesOf(inode.Key).ReadOnly && Changes(flags))
        {
            return Fail(Errno.EROFS);
        }

        if (!_handles.TryReserve())
        {
            return Fail(Errno.ENFILE);
        }

        SetIdState bits = (flags & Libc.O_TRUNC) == 0 ? default
            : BeforeChange(r, inode.Fd, (openFlags & Fuse.FUSE_OPEN_KILL_SUIDGID) != 0);
        int fd = Reopen(inode.Fd, inode.FileType, flags);
        AfterChange(r, fd, bits);
        if (fd < 0)
        {
            _handles.Release();
            return fd;
        }

        if (Changes(flags))
        {
            RefreshChanged(inode);
        }

        int error = AddHandle(inode, HandleKind.File, fd, flags, out reply);
        if (error == 0 && (reply.open_flags & Fuse.FOPEN_KEEP_CACHE) == 0 && HasMadeUpContents(fd))
        {
            // Some of them wait for an event that may never come.
            _ = Libc.fcntl(fd, Libc.F_SETFL, flags | Libc.O_NONBLOCK);
            reply.open_flags |= Fuse.FOPEN_DIRECT_IO;
        }

        return error;
    }

    /// <summary>
    /// The file's contents are made when they are read and st_size does not tell how long they are, as in /proc and /sys: the
    /// guest's kernel must ask for them instead of believing the size and its cache.
    /// </summary>
    private static bool HasMadeUpContents(int fd)
    {
        Libc.statfs_t stat;
        return Libc.fstatfs(fd, &stat) == 0 && stat.f_type switch
        {
            Libc.PROC_SUPER_MAGIC or Libc.SYSFS_MAGIC or Libc.CGROUP_SUPER_MAGIC or Libc.CGROUP2_SUPER_MAGIC
                or Libc.DEBUGFS_MAGIC or Libc.TRACEFS_MAGIC or Libc.SECURITYFS_MAGIC or Libc.BPF_FS_MAGIC => true,

            // Such as lxcfs.
            Libc.FUSE_SUPER_MAGIC => StatDescriptor(fd, Libc.STATX_SIZE, out Libc.statx_t s) == 0 && s.stx_size == 0,
            _ => false,
        };
    }

    /// <summary>Makes the handle for an open descriptor; takes over it and the place that was reserved.</summary>
    private int AddHandle(in InodePin inode, HandleKind kind, int fd, int flags, out fuse_open_out reply)
    {
        ExportRules rules = _exports.RulesOf(inode.Key);
        _inodes.AddOpen(inode);
        reply = new fuse_open_out { fh = _handles.Add(inode.NodeId, kind, fd, flags), open_flags = OpenFlags(rules, kind) };
        if (_inodes.IsReachable(inode.NodeId))
        {
            return 0;
        }

        // Its export was removed meanwhile: handles below it have been closed, and this one came too late for that.
        _ = _handles.Remove(reply.fh, inode.NodeId, kind is HandleKind.Directory or HandleKind.Root);
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
        // Always O_EXCL first: only then is it known that the file is new, and so the guest's user's.
        int flags = (int)create.flags & PassedFlags;
        error = CreateNew(r, parent, name, (flags & ~Libc.O_TRUNC) | Libc.O_CREAT | Libc.O_EXCL, create, out int fd);
        if (error == Fail(Errno.EEXIST) && (create.flags & Libc.O_EXCL) == 0)
        {
            return OpenExisting(r, parent, name, create);
        }

        return error != 0 ? error : ReplyCreated(r, parent, name, fd, flags);
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
        // The request carries a name, which means nothing.
        byte* here = stackalloc byte[2] { (byte)'.', 0 };
        int flags = (int)create.flags & PassedFlags & ~Libc.O_TRUNC;
        int exclusive = (int)create.flags & Libc.O_EXCL;
        byte none = 0;
        error = CreateNew(r, parent, here, flags | exclusive | Libc.O_TMPFILE, create, out int fd);
        return error != 0 ? error : ReplyCreated(r, parent, &none, fd, flags);
    }

    /// <summary>Makes a file as the guest's user; reserves a handle for its descriptor.</summary>
    private int CreateNew(FuseRequest r, in InodePin parent, byte* name, int flags, in fuse_create_in create, out int fd)
    {
        fd = -1;
        if (!_handles.TryReserve())
        {
            return Fail(Errno.ENFILE);
        }

        r.Credentials.SetUmask(create.umask);
        int error = r.Credentials.Enter(r.Header.uid, r.Header.gid);
        if (error == 0)
        {
            fd = OpenBeneath(parent.Fd, name, flags, AllowedMode(create.mode & 0xFFF, Libc.S_IFREG));
            error = fd < 0 ? Failed() : 0;
            r.Credentials.Leave(r.Header.uid, r.Header.gid);
        }

        if (error != 0)
        {
            _handles.Release();
            return error;
        }

        AfterCreate(fd, create);
        return 0;
    }

    /// <summary>Answers with the inode and the handle of a file just made; takes over its descriptor and the place for the handle.</summary>
    private int ReplyCreated(FuseRequest r, in InodePin parent, byte* name, int fd, int flags)
    {
        // The inode comes from the descriptor, not from the name, which may lead elsewhere by now.
        int error = Fail(Errno.ENFILE);
        int path = -1;
        if (_inodes.TryTake())
        {
            path = Reopen(fd, Libc.S_IFREG, Libc.O_PATH);
            error = Math.Min(path, 0);
            if (path < 0)
            {
                _budget.Give();
            }
        }

        ExportRules rules = _exports.RulesOf(parent.Key);
        Libc.statx_t stat = default;
        ulong node = 0;
        error = error != 0 ? error : AdoptChild(path, parent, rules, name, out stat, out node);
        if (error == 0 && _inodes.TryPin(node, out InodePin inode))
        {
            using InodePin pinned = inode;
            FillEntry(node, parent.Key, stat, out fuse_entry_out entry);
            error = AddHandle(inode, HandleKind.File, fd, flags, out fuse_open_out open);
            return ReplyEntryAndOpen(r, error, entry, open);
        }

        _ = Libc.close(fd);
        _handles.Release();
        return error != 0 ? error : Fail(Errno.ESTALE);
    }

    private int OpenExisting(FuseRequest r, in InodePin parent, byte* name, in fuse_create_in create)
    {
        int error = LookupChild(parent, _exports.RulesOf(parent.Key), name, out fuse_entry_out entry);
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

    private int Release(FuseRequest r, bool directory)
    {
        if (!r.TryRead(0, out fuse_release_in release))
        {
            return Fail(Errno.EINVAL);
        }

        if (!_handles.Remove(release.fh, r.NodeId, directory))
        {
            return Fail(Errno.EBADF);
        }

        // The handle's descriptor held what flock(2) locked by it.
        _locks.ReleaseHandle(r.NodeId, release.fh);
        Fifos.Remove(release.fh);
        if ((release.release_flags & Fuse.FUSE_RELEASE_FLOCK_UNLOCK) != 0)
        {
            _locks.NoteRelease();
        }

        return 0;
    }

    /// <summary>A process that closes a descriptor gives up its locks of the file. Closing a duplicate brings errors to light that the host's file system keeps for close(2), as NFS does.</summary>
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

        _locks.ReleaseOwner(r.NodeId, flush.lock_owner);

        using HandlePin pinned = handle;
        int copy = Libc.fcntl(handle.Fd, Libc.F_DUPFD_CLOEXEC, 0);
        return copy < 0 ? Failed() : Result(Libc.close(copy));
    }
}
