using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Exports;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>GETATTR, STATX and STATFS.</summary>
internal sealed class AttributeOperations(FsContext fs, GuestAttributes attributes)
{
    public int Get(FuseRequest r)
    {
        if (fs.Synthetic.Is(r.NodeId))
        {
            fuse_attr_out root = default;
            SyntheticDirectories.Attributes(out root.attr);
            return r.Reply(root);
        }

        if (!fs.Inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        return Reply(r, inode);
    }

    public int Statx(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_statx_in request))
        {
            return Fail(Errno.EINVAL);
        }

        if (fs.Synthetic.Is(r.NodeId))
        {
            fuse_statx_out root = default;
            root.stat.mask = Libc.STATX_BASIC_STATS;
            (root.stat.ino, root.stat.mode, root.stat.nlink, root.stat.blksize) = (InodeNumbers.Root, (ushort)SyntheticDirectories.Mode, 2, 4096);
            return r.Reply(root);
        }

        if (!fs.Inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        const uint Known = Libc.STATX_BASIC_STATS | Libc.STATX_BTIME;
        const uint OfMark = Libc.STATX_TYPE | Libc.STATX_MODE | Libc.STATX_SIZE;
        int error = DeviceMark.Stat(inode.Fd, (request.sx_mask & Known) | OfMark, out Libc.statx_t stat);
        if (error != 0)
        {
            return error;
        }

        fuse_statx_out reply = new() { attr_valid = ExportRules.ValidSeconds };
        reply.stat = new fuse_statx
        {
            mask = stat.stx_mask & Known,
            blksize = stat.stx_blksize,
            attributes = stat.stx_attributes,
            attributes_mask = stat.stx_attributes_mask,
            nlink = stat.stx_nlink,
            uid = stat.stx_uid,
            gid = stat.stx_gid,
            mode = stat.stx_mode,
            ino = attributes.NumberOf(inode.Key.Home, stat),
            size = stat.stx_size,
            blocks = stat.stx_blocks,
            atime = Time(stat.stx_atime),
            btime = Time(stat.stx_btime),
            ctime = Time(stat.stx_ctime),
            mtime = Time(stat.stx_mtime),
            rdev_major = stat.stx_rdev_major,
            rdev_minor = stat.stx_rdev_minor,
        };
        return r.Reply(reply);

        static fuse_sx_time Time(in Libc.statx_timestamp t) => new() { tv_sec = t.tv_sec, tv_nsec = t.tv_nsec };
    }

    // Safe: the kernel reads and writes locals of this call only.
    public unsafe int StatFs(FuseRequest r)
    {
        fuse_statfs_out reply = default;
        if (fs.Synthetic.Is(r.NodeId))
        {
            (reply.st.bsize, reply.st.frsize, reply.st.namelen) = (4096, 4096, FuseNames.MaxLength);
            return r.Reply(reply);
        }

        if (!fs.Inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        Libc.statfs_t stat;
        if (Libc.fstatfs(inode.Fd, &stat) != 0)
        {
            return Failed();
        }

        reply.st = new fuse_kstatfs
        {
            blocks = stat.f_blocks,
            bfree = stat.f_bfree,
            bavail = stat.f_bavail,
            files = stat.f_files,
            ffree = stat.f_ffree,
            bsize = (uint)stat.f_bsize,
            namelen = (uint)stat.f_namelen,
            frsize = (uint)stat.f_frsize,
        };
        return r.Reply(reply);
    }

    /// <summary>Answers with the attributes that an inode has now.</summary>
    public int Reply(FuseRequest r, in InodePin inode)
    {
        int error = DeviceMark.Stat(inode.Fd, HostInode.StatMask, out Libc.statx_t stat);
        if (error != 0)
        {
            return error;
        }

        fs.Inodes.Refresh(inode, stat);
        fuse_attr_out reply = new() { attr_valid = ExportRules.ValidSeconds };
        attributes.Fill(stat, inode.Key.Home, out reply.attr);
        reply.attr.flags |= attributes.MappingFlags(fs.Exports.RulesOf(inode.Key), stat.stx_mode);
        return r.Reply(reply);
    }
}
