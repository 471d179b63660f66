using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Fs.Protocol;

namespace MicroVm.Vmm.Fs;

/// <content>Making, removing and renaming names.</content>
internal sealed unsafe partial class FuseServer
{
    private int ReadLink(FuseRequest r)
    {
        if (!_inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return IsSynthesised(r.NodeId) ? Fail(Errno.EINVAL) : Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        if (inode.FileType != Libc.S_IFLNK)
        {
            return Fail(Errno.EINVAL);
        }

        byte empty = 0;
        nint n = Libc.readlinkat(inode.Fd, &empty, r.Scratch, FuseNames.MaxTarget);
        return n < 0 ? Failed() : r.Reply(r.Scratch, (int)n);
    }

    private int Symlink(FuseRequest r)
    {
        int error = r.ReadStrings(0, 2, out byte* name, out int length, out byte* target, out int targetLength);
        error = error != 0 ? error : FuseNames.CheckComponent(new ReadOnlySpan<byte>(name, length));
        if (error == 0 && targetLength is 0 or >= FuseNames.MaxTarget)
        {
            error = Fail(targetLength == 0 ? Errno.ENOENT : Errno.ENAMETOOLONG);
        }

        if (error != 0)
        {
            return error;
        }

        error = PinForChange(r.NodeId, out InodePin parent);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = parent;
        return MakeEntry(r, parent, name, Libc.S_IFLNK, target);
    }

    /// <summary>
    /// A device is made as a marked file, which is none to the host. The exception is the character device 0/0, which overlayfs
    /// uses as the mark of a deleted file and which opens nothing: the host's kernel lets everybody make it.
    /// </summary>
    private int MakeNode(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_mknod_in node))
        {
            return Fail(Errno.EINVAL);
        }

        uint type = node.mode & Libc.S_IFMT;
        switch (type)
        {
            case 0 or Libc.S_IFREG or Libc.S_IFIFO or Libc.S_IFSOCK:
            case Libc.S_IFCHR when node.rdev == 0:
                break;
            case Libc.S_IFCHR or Libc.S_IFBLK:
                break;
            default:
                return Fail(Errno.EINVAL);
        }

        int error = PinParent(r, sizeof(fuse_mknod_in), out byte* name, out InodePin parent);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = parent;
        r.Credentials.SetUmask(node.umask);
        return type == Libc.S_IFBLK || (type == Libc.S_IFCHR && node.rdev != 0) ? MakeDevice(r, parent, name, node)
            : type == Libc.S_IFSOCK && _lentSockets is not null && _inodes.IsBelow(parent, _sharesSockets) ? MakeSocket(r, parent, name, node)
            : MakeEntry(r, parent, name, type | AllowedMode(node.mode & 0xFFF, type));
    }

    /// <summary>
    /// A socket of the host is bound to the name, so that the host's processes can connect to it; where none is lent now, the
    /// name is the guest's alone.
    /// </summary>
    private int MakeSocket(FuseRequest r, in InodePin parent, byte* name, in fuse_mknod_in node)
    {
        if (!_lentSockets!.TryTake(parent.Fd, name))
        {
            return MakeEntry(r, parent, name, Libc.S_IFSOCK | (node.mode & 0xFFF));
        }

        // The kernel makes the file of an unbound socket's own mode, 0777.
        r.Credentials.SetUmask((node.umask | ~node.mode) & 0x1FF);
        int error = r.Credentials.Enter(r.Header.uid, r.Header.gid);
        if (error != 0)
        {
            return error;
        }

        error = _lentSockets.Bind(parent.Fd, name);
        r.Credentials.Leave(r.Header.uid, r.Header.gid);
        if (error != 0)
        {
            return error;
        }

        error = LookupChild(parent, _exports.RulesOf(parent.Key), name, out fuse_entry_out entry);
        _lentSockets.Announce(parent.Fd, name, error == 0 ? entry.nodeid : 0);
        return error != 0 ? error : Entry(r, entry);
    }

    private int MakeDevice(FuseRequest r, in InodePin parent, byte* name, in fuse_mknod_in node)
    {
        fuse_create_in create = new() { mode = DeviceMark.HostMode, umask = node.umask };
        int error = CreateNew(r, parent, name, Libc.O_WRONLY | Libc.O_CREAT | Libc.O_EXCL, create, out int fd);
        if (error != 0)
        {
            return error;
        }

        // A file system without such attributes refuses a node as it would without the right to make one.
        error = Result(DeviceMark.Write(fd, node.mode & Libc.S_IFMT, node.mode & 0xFFF & ~node.umask, node.rdev));
        error = error == Fail(Errno.EOPNOTSUPP) ? Fail(Errno.EPERM) : error;
        _ = Libc.close(fd);
        _handles.Release();
        if (error != 0)
        {
            _ = Libc.unlinkat(parent.Fd, name, 0);
        }
        else
        {
            DeviceMark.WriteFolder(parent.Fd);
        }

        return ReplyNewEntry(r, parent, name, error);
    }

    private int MakeDirectory(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_mkdir_in make))
        {
            return Fail(Errno.EINVAL);
        }

        int error = PinParent(r, sizeof(fuse_mkdir_in), out byte* name, out InodePin parent);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = parent;
        r.Credentials.SetUmask(make.umask);
        return MakeEntry(r, parent, name, Libc.S_IFDIR | (make.mode & 0xFFF));
    }

    /// <summary>Makes what <paramref name="mode"/> says, as the guest's user, and answers with it.</summary>
    private int MakeEntry(FuseRequest r, in InodePin parent, byte* name, uint mode, byte* target = null)
    {
        int error = r.Credentials.Enter(r.Header.uid, r.Header.gid);
        if (error == 0)
        {
            error = Result((mode & Libc.S_IFMT) switch
            {
                Libc.S_IFLNK => Libc.symlinkat(target, parent.Fd, name),
                Libc.S_IFDIR => Libc.mkdirat(parent.Fd, name, mode & 0xFFF),
                _ => Libc.mknodat(parent.Fd, name, mode, 0),
            });
            r.Credentials.Leave(r.Header.uid, r.Header.gid);
        }

        return ReplyNewEntry(r, parent, name, error);
    }

    /// <summary>Takes the name that ends the request, and lends the inode that it is made, changed or removed in.</summary>
    private int PinParent(FuseRequest r, int nameOffset, out byte* name, out InodePin parent)
    {
        parent = default;
        int error = r.ReadName(nameOffset, out name);
        return error != 0 ? error : PinForChange(r.NodeId, out parent);
    }

    private int ReplyNewEntry(FuseRequest r, in InodePin parent, byte* name, int error)
    {
        fuse_entry_out entry = default;
        if (error == 0)
        {
            error = LookupChild(parent, _exports.RulesOf(parent.Key), name, out entry);
        }

        return error != 0 ? error : Entry(r, entry);
    }

    private int Unlink(FuseRequest r, int flags)
    {
        int error = PinParent(r, 0, out byte* name, out InodePin parent);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = parent;
        return Result(Libc.unlinkat(parent.Fd, name, flags));
    }

    private int Rename(FuseRequest r) => r.TryRead(0, out fuse_rename_in rename)
        ? Rename(r, sizeof(fuse_rename_in), rename.newdir, 0)
        : Fail(Errno.EINVAL);

    private int RenameWithFlags(FuseRequest r)
    {
        const uint Known = Libc.RENAME_NOREPLACE | Libc.RENAME_EXCHANGE | Libc.RENAME_WHITEOUT;
        return r.TryRead(0, out fuse_rename2_in rename) && (rename.flags & ~Known) == 0
            ? Rename(r, sizeof(fuse_rename2_in), rename.newdir, rename.flags)
            : Fail(Errno.EINVAL);
    }

    private int Rename(FuseRequest r, int offset, ulong newDirectory, uint flags)
    {
        int error = r.ReadNames(offset, out byte* oldName, out byte* newName);
        if (error != 0)
        {
            return error;
        }

        error = PinForChange(r.NodeId, out InodePin from);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinnedFrom = from;
        error = PinForChange(newDirectory, out InodePin to);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinnedTo = to;
        if (from.Key.Rights != to.Key.Rights || !_inodes.AreTogether(from, to))
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
            _inodes.Rename(moved, to, newName);
            RefreshChanged(moved);
            MarkFolder(moved, to);
        }

        if (knownNew)
        {
            _inodes.Rename(exchanged, from, oldName);
            RefreshChanged(exchanged);
            MarkFolder(exchanged, from);
        }

        return 0;
    }

    private int Rename(in InodePin from, byte* oldName, in InodePin to, byte* newName, uint flags)
    {
        int error = Result(Libc.renameat2(from.Fd, oldName, to.Fd, newName, flags));
        if (error == Fail(Errno.EXDEV) && from.MountId != to.MountId && _inodes.TryOpenTogether(from, to, out int first, out int second))
        {
            error = Result(Libc.renameat2(first, oldName, second, newName, flags));
            _inodes.CloseOpened(first);
            _inodes.CloseOpened(second);
        }

        return error;
    }

    /// <summary>Lends the inode that a name leads to now, if the guest knows it.</summary>
    private bool TryPinChild(scoped in InodePin parent, byte* name, out InodePin child)
    {
        child = default;
        return StatChild(parent.Fd, name, out Libc.statx_t stat) == 0 && IsOnMountOf(parent, stat)
            && _inodes.TryPinKnown(new InodeKey(stat, parent.Key.Rights), stat, parent, name, out child);
    }

    private static void MarkFolder(in InodePin inode, in InodePin folder)
    {
        if (inode.FileType is Libc.S_IFCHR or Libc.S_IFBLK)
        {
            DeviceMark.WriteFolder(folder.Fd);
        }
    }

    /// <summary>A change may have copied an overlay's inode up.</summary>
    private void RefreshChanged(in InodePin inode)
    {
        if (inode.IsOverlay && StatDescriptor(inode.Fd, StatMask, out Libc.statx_t stat) == 0)
        {
            _inodes.Refresh(inode, stat);
        }
    }

    private int Link(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_link_in link))
        {
            return Fail(Errno.EINVAL);
        }

        int error = PinParent(r, sizeof(fuse_link_in), out byte* name, out InodePin parent);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinnedParent = parent;
        error = PinForChange(link.oldnodeid, out InodePin inode);
        if (error != 0)
        {
            return error;
        }

        using InodePin pinned = inode;
        if (inode.Key.Rights != parent.Key.Rights || !_inodes.AreTogether(inode, parent))
        {
            return Fail(Errno.EXDEV);
        }

        error = Link(inode.Fd, parent.Fd, name);
        if (error == Fail(Errno.EXDEV) && inode.MountId != parent.MountId
            && _inodes.TryOpenTogether(inode, parent, out int first, out int second))
        {
            error = Link(first, second, name);
            _inodes.CloseOpened(first);
            _inodes.CloseOpened(second);
        }

        RefreshChanged(inode);
        MarkFolder(inode, parent);
        return ReplyNewEntry(r, parent, name, error);
    }

    private int Link(int inode, int parent, byte* name)
    {
        // Following the link in /proc/self/fd leads to the inode itself, also when that is a symbolic link.
        byte* source = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(inode, source);
        return Result(Libc.linkat(_procSelfFd.Value, source, parent, name, Libc.AT_SYMLINK_FOLLOW));
    }
}
