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
    internal const uint StatMask = Libc.STATX_BASIC_STATS | Libc.STATX_MNT_ID | Libc.STATX_BTIME;

    /// <summary>Opens one component below a directory, never through a link, never upwards.</summary>
    internal static int OpenBeneath(int directory, byte* name, int flags, uint mode)
    {
        Libc.open_how how = new()
        {
            flags = (uint)(flags | Libc.O_NOFOLLOW | Libc.O_CLOEXEC),
            mode = mode,
            resolve = ResolveOneComponent,
        };
        return Libc.openat2(directory, name, &how, (nuint)sizeof(Libc.open_how));
    }

    /// <summary>Attributes of the file behind a descriptor, O_PATH or not, as the guest sees them: a marked file is a device.</summary>
    private static int StatDescriptor(int fd, uint mask, out Libc.statx_t stat)
    {
        int error = StatOnHost(fd, mask, out stat);
        if (error == 0)
        {
            DeviceMark.Apply(fd, ref stat);
        }

        return error;
    }

    /// <summary>Attributes of the file behind a descriptor as the host has them; on any thread.</summary>
    internal static int StatOnHost(int fd, uint mask, out Libc.statx_t stat)
    {
        byte empty = 0;
        fixed (Libc.statx_t* p = &stat)
        {
            return Result(Libc.statx(fd, &empty, StatFlags | Libc.AT_EMPTY_PATH, mask, p));
        }
    }

    /// <summary>Attributes of what a checked name of one component leads to below a directory, links not followed, as the host has them.</summary>
    internal static int StatChild(int directory, byte* name, out Libc.statx_t stat)
    {
        fixed (Libc.statx_t* p = &stat)
        {
            return Result(Libc.statx(directory, name, StatFlags, StatMask, p));
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
        if (IsSynthesised(r.NodeId))
        {
            return LookupExport(r, text);
        }

        if (!_inodes.TryPin(r.NodeId, out InodePin parent))
        {
            return Fail(Errno.ESTALE);
        }

        using InodePin pinned = parent;
        ExportRules rules = _exports.RulesOf(parent.Key);
        fuse_entry_out entry;
        if (FuseNames.IsDot(text) || (FuseNames.IsDotDot(text) && parent.IsExportRoot))
        {
            error = LookupSelf(parent, out entry);
        }
        else
        {
            // Other parents are not to be asked for, since EXPORT_SUPPORT is not offered: ".." is no valid name.
            error = FuseNames.CheckComponent(text);
            if (error != 0)
            {
                return error;
            }

            error = LookupChild(parent, rules, name, out entry);
            if (error == Fail(Errno.ENOENT) && rules.Cache == FsCache.Exclusive)
            {
                // Node id 0: the kernel may remember that the name does not exist.
                entry = new fuse_entry_out { entry_valid = ExportRules.ValidSeconds };
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
            entry.nodeid = r.NodeId;
            RootAttributes(out entry.attr);
            return r.Reply(entry);
        }

        int device = r.NodeId == Fuse.FUSE_ROOT_ID ? _exports.FindDevice(name) : -1;
        if (device >= 0)
        {
            return r.Reply(DeviceEntry(device));
        }

        int error = FuseNames.CheckComponent(name);
        if (error == 0)
        {
            error = _exports.Find(name) is { } export && IsIn(export, r.NodeId) ? LookupExportRoot(export, out entry) : Fail(Errno.ENOENT);
        }

        return error != 0 ? error : Entry(r, entry);
    }

    private int LookupExportRoot(Export export, out fuse_entry_out entry)
    {
        entry = default;
        if (!_inodes.TryTake())
        {
            return Fail(Errno.ENFILE);
        }

        int fd = _exports.Duplicate(export, out Errno errno);
        if (fd < 0)
        {
            _budget.Give();
            return Fail(errno);
        }

        byte none = 0;
        FreshInode fresh = new() { Fd = fd, Export = export.Index, Parent = InodeEntry.None, Name = &none };
        fresh.Key = new InodeKey(0, 0, InodeKey.RightsOf(export.Rules.Index, false, _hasSubmounts ? export.Device : 0), 0);
        int error = Adopt(ref fresh, export.Rules, out ulong node);
        if (error != 0)
        {
            return error;
        }

        if (_exports[export.Index] is null)
        {
            // Removed meanwhile, after which nothing would close the descriptor before the guest forgets the inode.
            _inodes.Forget(node, 1);
            _inodes.RemoveExport(export.Index, FindExportOf);
            return Fail(Errno.ENOENT);
        }

        // Exports come and go, and a name may come back for another tree: it is looked up each time.
        FillEntry(node, fresh.Key, fresh.Stat, out entry);
        entry.entry_valid = 0;
        return 0;
    }

    /// <summary>The number of an export whose root is an inode; <see cref="InodeEntry.None"/> when there is none.</summary>
    private int FindExportOf(InodeKey key)
    {
        for (int i = 0; i < _exports.HighWater; i++)
        {
            if (_exports[i] is { } export && export.Rules.Index == key.Rules && (!_hasSubmounts || export.Device == key.Home))
            {
                int fd = _exports.Duplicate(export, out _);
                bool found = fd >= 0 && StatOnHost(fd, StatMask, out Libc.statx_t stat) == 0
                    && stat.stx_ino == key.Number && InodeKey.DeviceOf(stat) == key.Device;
                _ = fd < 0 ? 0 : Libc.close(fd);
                if (found)
                {
                    return i;
                }
            }
        }

        return InodeEntry.None;
    }

    private int LookupSelf(in InodePin inode, out fuse_entry_out entry)
    {
        entry = default;
        int error = StatDescriptor(inode.Fd, StatMask, out Libc.statx_t stat);
        if (error == 0)
        {
            FillEntry(_inodes.AddReference(inode), inode.Key, stat, out entry);
        }

        return error;
    }

    /// <summary>Gives the guest a reference to the inode that <paramref name="name"/> names now.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="rules">What holds below it.</param>
    /// <param name="name">One path component, checked.</param>
    /// <param name="entry">The answer.</param>
    private int LookupChild(in InodePin parent, ExportRules rules, byte* name, out fuse_entry_out entry)
    {
        // One component without a slash, not "..", not followed: this cannot leave the directory either.
        entry = default;
        int missing = StatChild(parent.Fd, name, out Libc.statx_t stat);
        if (missing != 0)
        {
            return missing;
        }

        // On another mount, only its descriptor tells the rights; and only that tells what a marked file is.
        ulong node = IsOnMountOf(parent, stat) && !DeviceMark.IsLikely(stat)
            ? _inodes.AddReference(new InodeKey(stat, parent.Key.Rights), stat, parent, name)
            : 0;
        if (node == 0)
        {
            int error = InsertChild(parent, rules, name, out stat, out node);
            if (error != 0)
            {
                return error;
            }
        }

        FillEntry(node, parent.Key, stat, out entry);
        return 0;
    }

    private static bool IsOnMountOf(in InodePin parent, in Libc.statx_t stat) =>
        (stat.stx_mask & Libc.STATX_MNT_ID) == 0 || stat.stx_mnt_id == parent.MountId;

    private int InsertChild(in InodePin parent, ExportRules rules, byte* name, out Libc.statx_t stat, out ulong node)
    {
        stat = default;
        node = 0;
        if (!_inodes.TryTake())
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

        return AdoptChild(fd, parent, rules, name, out stat, out node);
    }

    /// <summary>
    /// Gives the guest a reference to the inode behind an O_PATH descriptor that a name of <paramref name="parent"/> led to;
    /// takes over the descriptor and its budget.
    /// </summary>
    private int AdoptChild(int fd, in InodePin parent, ExportRules rules, byte* name, out Libc.statx_t stat, out ulong node)
    {
        FreshInode fresh = new()
        {
            Fd = fd,
            Export = InodeEntry.None,
            Parent = parent.Index,
            Name = name,
            IsOverlay = parent.IsOverlay,
            Key = parent.Key,
        };
        fresh.Stat.stx_mnt_id = parent.MountId;
        int error = Adopt(ref fresh, rules, out node);
        stat = fresh.Stat;
        return error;
    }

    /// <summary>Completes a new inode and adds it to the table; takes over its descriptor and budget.</summary>
    private int Adopt(ref FreshInode fresh, ExportRules rules, out ulong node)
    {
        ulong mount = fresh.Stat.stx_mnt_id;
        uint rights = fresh.Key.Rights;
        node = 0;
        int error = StatDescriptor(fresh.Fd, StatMask, out fresh.Stat);
        Libc.statfs_t fileSystem;
        if (error == 0 && (fresh.Export != InodeEntry.None || (fresh.MountId != 0 && fresh.MountId != mount)))
        {
            error = Result(Libc.fstatfs(fresh.Fd, &fileSystem));
            rights = InodeKey.RightsOf(rules.Index, (fileSystem.f_flags & Libc.ST_RDONLY) != 0, fresh.Key.Home);
            fresh.IsOverlay = fileSystem.f_type == Libc.OVERLAYFS_SUPER_MAGIC;
        }

        if (error != 0)
        {
            Close(fresh.Fd);
            return error;
        }

        fresh.Key = new InodeKey(fresh.Stat, rights);
        LinkKind links = LinkKind.Separate;
        if (fresh.IsOverlay && _inodes.TryPinNamesake(fresh, out InodePin namesake))
        {
            using InodePin pinned = namesake;
            links = CompareLinks(namesake, fresh.Fd);
        }

        node = _inodes.Insert(fresh, links);
        return node == 0 ? Fail(Errno.ENFILE) : 0;
    }

    private LinkKind CompareLinks(in InodePin known, int fd)
    {
        if (known.FileType != Libc.S_IFREG)
        {
            // What cannot be opened has no locks.
            return Events.AreOne(known.Fd, fd) ? LinkKind.Same : LinkKind.Separate;
        }

        int first = Reopen(known.Fd, known.FileType, Libc.O_RDONLY);
        int second = first < 0 ? -1 : Reopen(fd, known.FileType, Libc.O_RDONLY);
        LinkKind links = second < 0 ? LinkKind.Separate : OverlayLinks.Compare(first, second);
        _ = first < 0 ? 0 : Libc.close(first);
        _ = second < 0 ? 0 : Libc.close(second);
        return links;
    }

    private void FillEntry(ulong node, InodeKey key, in Libc.statx_t stat, out fuse_entry_out entry)
    {
        entry = new fuse_entry_out
        {
            nodeid = node,
            entry_valid = ExportRules.ValidSeconds,
            attr_valid = ExportRules.ValidSeconds,
        };
        FillAttributes(stat, key.Home, out entry.attr);
        entry.attr.flags |= MappingFlags(_exports.RulesOf(key), stat.stx_mode) | FifoFlags(node, stat.stx_mode);
    }
}
