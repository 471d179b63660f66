using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Fs.Protocol;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Fs;

/// <content>From names to inodes.</content>
internal sealed unsafe partial class FuseServer
{
    private const ulong ResolveOneComponent = Libc.RESOLVE_BENEATH | Libc.RESOLVE_NO_SYMLINKS | Libc.RESOLVE_NO_MAGICLINKS;
    private const int StatFlags = Libc.AT_SYMLINK_NOFOLLOW | Libc.AT_NO_AUTOMOUNT;
    private const uint StatMask = Libc.STATX_BASIC_STATS | Libc.STATX_MNT_ID;

    /// <summary>Opens one component below a directory, never through a link, never upwards.</summary>
    private static int OpenBeneath(int directory, byte* name, int flags, uint mode)
    {
        Libc.open_how how = new()
        {
            flags = (uint)(flags | Libc.O_NOFOLLOW | Libc.O_CLOEXEC),
            mode = mode,
            resolve = ResolveOneComponent,
        };
        return (int)Libc.syscall((nint)Libc.SYS_openat2, directory, (nint)name, (nint)(&how), sizeof(Libc.open_how), 0, 0);
    }

    /// <summary>Attributes of the file behind a descriptor, O_PATH or not.</summary>
    private static int StatDescriptor(int fd, uint mask, out Libc.statx_t stat)
    {
        byte empty = 0;
        fixed (Libc.statx_t* p = &stat)
        {
            return Result(Libc.statx(fd, &empty, StatFlags | Libc.AT_EMPTY_PATH, mask, p));
        }
    }

    /// <summary>
    /// Opens an inode for I/O through /proc/self/fd, which leads to that very inode whatever became of its name. Only
    /// regular files and directories: opening a FIFO blocks, and a device is the host's.
    /// </summary>
    /// <returns>The descriptor, or a negative errno.</returns>
    private int Reopen(int fd, uint type, int flags)
    {
        if (type != Libc.S_IFREG && type != Libc.S_IFDIR)
        {
            return Fail(type == Libc.S_IFLNK ? Errno.ELOOP : Errno.ENXIO);
        }

        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(fd, link);
        int opened = Libc.openat(_procSelfFd.Value, link, (flags & ~Libc.O_NOFOLLOW) | Libc.O_CLOEXEC, 0);
        return opened < 0 ? Failed() : opened;
    }

    private int Lookup(FuseRequest r)
    {
        int error = r.ReadStrings(0, 1, out byte* name, out int length, out _, out _);
        if (error != 0)
        {
            return error;
        }

        ReadOnlySpan<byte> text = new(name, length);
        if (r.NodeId == Fuse.FUSE_ROOT_ID)
        {
            return LookupExport(r, text);
        }

        if (!_inodes.TryPin(r.NodeId, out InodePin parent))
        {
            return Fail(Errno.ESTALE);
        }

        using InodePin pinned = parent;
        if (_exports[parent.Key.Export] is not { } export)
        {
            return Fail(Errno.ESTALE);
        }

        fuse_entry_out entry;
        if (FuseNames.IsDot(text) || (FuseNames.IsDotDot(text) && parent.IsExportRoot))
        {
            error = LookupSelf(parent, export, out entry);
        }
        else
        {
            // Other parents are not to be asked for, since EXPORT_SUPPORT is not offered: ".." is no valid name.
            error = FuseNames.CheckComponent(text);
            if (error != 0)
            {
                return error;
            }

            error = LookupChild(parent, export, name, out entry);
            if (error == Fail(Errno.ENOENT) && export.Cache == FsCache.Exclusive)
            {
                // Node id 0: the kernel may remember that the name does not exist.
                entry = new fuse_entry_out { entry_valid = export.ValidSeconds };
                error = 0;
            }
        }

        return error != 0 ? error : Entry(r, entry);
    }

    /// <summary>Answers with an entry; takes its reference back when the answer does not fit.</summary>
    private int Entry(FuseRequest r, in fuse_entry_out entry)
    {
        int result = r.Reply(entry);
        if (result < 0 && entry.nodeid > Fuse.FUSE_ROOT_ID)
        {
            _inodes.Forget(entry.nodeid, 1);
        }

        return result;
    }

    private int LookupExport(FuseRequest r, ReadOnlySpan<byte> name)
    {
        fuse_entry_out entry = default;
        if (FuseNames.IsDot(name) || FuseNames.IsDotDot(name))
        {
            entry.nodeid = Fuse.FUSE_ROOT_ID;
            RootAttributes(out entry.attr);
            return r.Reply(entry);
        }

        int error = FuseNames.CheckComponent(name);
        if (error == 0)
        {
            error = _exports.Find(name) is { } export ? LookupExportRoot(export, out entry) : Fail(Errno.ENOENT);
        }

        return error != 0 ? error : Entry(r, entry);
    }

    private int LookupExportRoot(Export export, out fuse_entry_out entry)
    {
        entry = default;
        if (!_budget.TryTake())
        {
            return Fail(Errno.ENFILE);
        }

        int fd = _exports.Duplicate(export, out Errno errno);
        int error = fd < 0 ? Fail(errno) : 0;
        Libc.statx_t stat = default;
        if (error == 0)
        {
            error = StatDescriptor(fd, StatMask, out stat);
            if (error != 0)
            {
                _ = Libc.close(fd);
            }
        }

        if (error != 0)
        {
            _budget.Give();
            return error;
        }

        ulong node = _inodes.Insert(new InodeKey(stat, export.Index), fd, stat.stx_mode & Libc.S_IFMT, isExportRoot: true);
        if (_exports[export.Index] is null)
        {
            // Removed meanwhile, after which nothing would close the descriptor before the guest forgets the inode.
            _inodes.Forget(node, 1);
            return Fail(Errno.ENOENT);
        }

        // Exports come and go, and a name may come back for another tree: it is looked up each time.
        FillEntry(node, export, stat, out entry);
        entry.entry_valid = 0;
        return 0;
    }

    private int LookupSelf(in InodePin inode, Export export, out fuse_entry_out entry)
    {
        entry = default;
        int error = StatDescriptor(inode.Fd, StatMask, out Libc.statx_t stat);
        if (error == 0)
        {
            // The pin keeps it in the table, so that the reference goes to the same id.
            ulong node = _inodes.AddReference(inode.Key);
            error = node == 0 ? Fail(Errno.ESTALE) : 0;
            FillEntry(node, export, stat, out entry);
        }

        return error;
    }

    /// <summary>Gives the guest a reference to the inode that <paramref name="name"/> names now.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="export">The parent's export.</param>
    /// <param name="name">One path component, checked.</param>
    /// <param name="entry">The answer.</param>
    private int LookupChild(in InodePin parent, Export export, byte* name, out fuse_entry_out entry)
    {
        // One component without a slash, not "..", not followed: this cannot leave the directory either. When its key is
        // in the table, the table's descriptor is that inode, since it keeps the number from being used again.
        Libc.statx_t stat;
        entry = default;
        if (Libc.statx(parent.Fd, name, StatFlags, StatMask, &stat) != 0)
        {
            return Failed();
        }

        ulong node = _inodes.AddReference(new InodeKey(stat, export.Index));
        if (node == 0)
        {
            int error = InsertChild(parent, export, name, out stat, out node);
            if (error != 0)
            {
                return error;
            }
        }

        FillEntry(node, export, stat, out entry);
        return 0;
    }

    private int InsertChild(in InodePin parent, Export export, byte* name, out Libc.statx_t stat, out ulong node)
    {
        stat = default;
        node = 0;
        if (!_budget.TryTake())
        {
            return Fail(Errno.ENFILE);
        }

        int fd = OpenBeneath(parent.Fd, name, Libc.O_PATH, 0);
        if (fd < 0)
        {
            int error = Failed();
            _budget.Give();
            return error;
        }

        return Adopt(fd, export, out stat, out node);
    }

    /// <summary>Gives the guest a reference to the inode behind an O_PATH descriptor; takes over it and its budget.</summary>
    private int Adopt(int fd, Export export, out Libc.statx_t stat, out ulong node)
    {
        node = 0;
        int error = StatDescriptor(fd, StatMask, out stat);
        if (error != 0)
        {
            _ = Libc.close(fd);
            _budget.Give();
            return error;
        }

        node = _inodes.Insert(new InodeKey(stat, export.Index), fd, stat.stx_mode & Libc.S_IFMT, isExportRoot: false);
        return 0;
    }

    private void FillEntry(ulong node, Export export, in Libc.statx_t stat, out fuse_entry_out entry)
    {
        entry = new fuse_entry_out
        {
            nodeid = node,
            entry_valid = export.ValidSeconds,
            attr_valid = export.ValidSeconds,
        };
        FillAttributes(stat, out entry.attr);
    }
}
