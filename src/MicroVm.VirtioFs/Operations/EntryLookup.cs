using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Exports;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>Gives the guest references to the inodes that names of a directory lead to, and answers with them.</summary>
internal sealed class EntryLookup(FsContext fs, GuestAttributes attributes)
{
    /// <summary>Gives the guest a reference to the inode that <paramref name="name"/> names now.</summary>
    /// <param name="parent">The directory.</param>
    /// <param name="rules">What holds below it.</param>
    /// <param name="name">One path component, checked.</param>
    /// <param name="entry">The answer.</param>
    // Safe: the name is passed on, not followed.
    public unsafe int LookupChild(in InodePin parent, ExportRules rules, byte* name, out fuse_entry_out entry)
    {
        // One component without a slash, not "..", not followed: this cannot leave the directory either.
        entry = default;
        int missing = HostInode.StatChild(parent.Fd, name, out Libc.statx_t stat);
        if (missing != 0)
        {
            return missing;
        }

        // On another mount, only its descriptor tells the rights; and only that tells what a marked file is.
        ulong node = IsOnMountOf(parent, stat) && !DeviceMark.IsLikely(stat)
            ? fs.Inodes.AddReference(new InodeKey(stat, parent.Key.Rights), stat, parent, name)
            : 0;
        if (node == 0)
        {
            int error = InsertChild(parent, rules, name, out stat, out node);
            if (error != 0)
            {
                return error;
            }
        }

        Fill(node, parent.Key, stat, out entry);
        return 0;
    }

    /// <summary>Gives the guest one more reference to an inode.</summary>
    public int LookupSelf(in InodePin inode, out fuse_entry_out entry)
    {
        entry = default;
        int error = DeviceMark.Stat(inode.Fd, HostInode.StatMask, out Libc.statx_t stat);
        if (error == 0)
        {
            Fill(fs.Inodes.AddReference(inode), inode.Key, stat, out entry);
        }

        return error;
    }

    /// <summary>
    /// Gives the guest a reference to the inode behind an O_PATH descriptor that a name of <paramref name="parent"/> led to;
    /// takes over the descriptor and its budget.
    /// </summary>
    // Safe: the name is passed on, not followed.
    public unsafe int AdoptChild(int fd, in InodePin parent, ExportRules rules, byte* name, out Libc.statx_t stat, out ulong node)
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
    // Safe: the kernel reads and writes locals of this call only.
    public unsafe int Adopt(ref FreshInode fresh, ExportRules rules, out ulong node)
    {
        ulong mount = fresh.Stat.stx_mnt_id;
        uint rights = fresh.Key.Rights;
        node = 0;
        int error = DeviceMark.Stat(fresh.Fd, HostInode.StatMask, out fresh.Stat);
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
        if (fresh.IsOverlay && fs.Inodes.Arrivals.TryPinNamesake(fresh, out InodePin namesake))
        {
            using InodePin pinned = namesake;
            links = CompareLinks(namesake, fresh.Fd);
        }

        node = fs.Inodes.Arrivals.Insert(fresh, links);
        return node == 0 ? Fail(Errno.ENFILE) : 0;
    }

    /// <summary>Describes an inode of which the guest has got a reference.</summary>
    public void Fill(ulong node, InodeKey key, in Libc.statx_t stat, out fuse_entry_out entry)
    {
        entry = new fuse_entry_out
        {
            nodeid = node,
            entry_valid = ExportRules.ValidSeconds,
            attr_valid = ExportRules.ValidSeconds,
        };
        attributes.Fill(stat, key.Home, out entry.attr);
        entry.attr.flags |= attributes.MappingFlags(fs.Exports.RulesOf(key), stat.stx_mode) | attributes.FifoFlags(node, stat.stx_mode);
    }

    /// <summary>Answers with an entry; takes its reference back when the answer does not fit.</summary>
    public int Reply(FuseRequest r, in fuse_entry_out entry)
    {
        int result = r.Reply(entry);
        if (result < 0 && entry.nodeid > Fuse.FUSE_ROOT_ID)
        {
            fs.Inodes.Forget(entry.nodeid, 1);
        }

        return result;
    }

    /// <summary>Answers with what a name that was just made leads to, unless making it failed.</summary>
    // Safe: the name is passed on, not followed.
    public unsafe int ReplyNew(FuseRequest r, in InodePin parent, byte* name, int error)
    {
        fuse_entry_out entry = default;
        if (error == 0)
        {
            error = LookupChild(parent, fs.Exports.RulesOf(parent.Key), name, out entry);
        }

        return error != 0 ? error : Reply(r, entry);
    }

    /// <summary>What a name of the directory leads to is on the directory's mount.</summary>
    public static bool IsOnMountOf(in InodePin parent, in Libc.statx_t stat) =>
        (stat.stx_mask & Libc.STATX_MNT_ID) == 0 || stat.stx_mnt_id == parent.MountId;

    // Safe: the name is passed on, not followed.
    private unsafe int InsertChild(in InodePin parent, ExportRules rules, byte* name, out Libc.statx_t stat, out ulong node)
    {
        stat = default;
        node = 0;
        if (!fs.Inodes.TryTake())
        {
            return Fail(Errno.ENFILE);
        }

        int fd = HostInode.OpenBeneath(parent.Fd, name, Libc.O_PATH, 0);
        if (fd < 0)
        {
            int error = Failed();
            fs.Budget.Give();
            return error;
        }

        return AdoptChild(fd, parent, rules, name, out stat, out node);
    }

    private LinkKind CompareLinks(in InodePin known, int fd)
    {
        if (known.FileType != Libc.S_IFREG)
        {
            // What cannot be opened has no locks.
            return fs.Events.AreOne(known.Fd, fd) ? LinkKind.Same : LinkKind.Separate;
        }

        int first = fs.Reopen(known.Fd, known.FileType, Libc.O_RDONLY);
        int second = first < 0 ? -1 : fs.Reopen(fd, known.FileType, Libc.O_RDONLY);
        LinkKind links = second < 0 ? LinkKind.Separate : OverlayLinks.Compare(first, second);
        _ = first < 0 ? 0 : Libc.close(first);
        _ = second < 0 ? 0 : Libc.close(second);
        return links;
    }

    private void Close(int fd)
    {
        _ = Libc.close(fd);
        fs.Budget.Give();
    }
}
