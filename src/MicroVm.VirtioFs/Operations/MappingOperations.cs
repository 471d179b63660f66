using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Dax;
using MicroVm.VirtioFs.Exports;
using MicroVm.VirtioFs.Handles;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using MicroVm.VmmControl;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>SETUPMAPPING and REMOVEMAPPING: files that the guest has mapped through the device's window.</summary>
internal sealed class MappingOperations(FsContext fs)
{
    private const ulong NoHandle = ulong.MaxValue;

    // Several windows: what is mapped already may have holes, too.
    private const ulong LittleRoom = 8 * DaxWindow.MaxLength;
    private volatile Action? _onMapped;

    /// <summary>Has <paramref name="notify"/> called when the first file is mapped.</summary>
    public void OnMapped(Action? notify) => _onMapped = notify;

    public int SetUp(FuseRequest r)
    {
        if (fs.Window is not { } window || !fs.Session.MapsFiles)
        {
            return fs.Unsupported(FuseOpcode.FUSE_SETUPMAPPING);
        }

        const ulong Known = Fuse.FUSE_SETUPMAPPING_FLAG_READ | Fuse.FUSE_SETUPMAPPING_FLAG_WRITE;
        if (!r.TryRead(0, out fuse_setupmapping_in mapping)
            || (mapping.flags & ~Known) != 0 || (mapping.flags & Known) == 0
            || mapping.len != DaxWindow.SlotLength || !window.AreSlots(mapping.moffset, mapping.len)
            || mapping.foffset % DaxWindow.SlotLength != 0 || !FileRange.IsValid(mapping.foffset, mapping.len))
        {
            return Fail(Errno.EINVAL);
        }

        if (!fs.Inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        bool writable = (mapping.flags & Fuse.FUSE_SETUPMAPPING_FLAG_WRITE) != 0;
        int error = CheckMapping(r, inode, mapping.fh, writable);
        if (error != 0)
        {
            return error;
        }

        // Pages of an image's file are those of everybody who uses the image, and who has them mapped can flush and time them. Opened for
        // writing, a file has pages of its own: an overlay copies it.
        bool own = writable || fs.Exports.RulesOf(inode.Key).Cache == FsCache.Exclusive;
        int fd = fs.Reopen(inode.Fd, inode.FileType, own ? Libc.O_RDWR : Libc.O_RDONLY);
        if (fd < 0)
        {
            return fd;
        }

        error = writable ? FillHoles(fd, mapping.foffset) : 0;
        if (error != 0)
        {
            _ = Libc.close(fd);
            return error;
        }

        bool first = window.MappedCount == 0;
        error = -(int)window.Map(mapping.moffset, r.NodeId, fd, mapping.foffset, writable);
        if (error == 0 && first)
        {
            _onMapped?.Invoke();
        }

        if (error == 0 && !fs.Inodes.Names.IsReachable(r.NodeId))
        {
            // Its export was removed meanwhile, and with it what was mapped until then.
            _ = window.TryUnmap(mapping.moffset, mapping.len);
            return Fail(Errno.ESTALE);
        }

        return error;
    }

    // Safe: the size of a struct is asked for, nothing is followed.
    public unsafe int Remove(FuseRequest r)
    {
        if (fs.Window is not { } window || !fs.Session.MapsFiles)
        {
            return fs.Unsupported(FuseOpcode.FUSE_REMOVEMAPPING);
        }

        if (!r.TryRead(0, out fuse_removemapping_in remove) || remove.count == 0
            || r.ArgumentLength != (ulong)sizeof(fuse_removemapping_in) + ((ulong)remove.count * (ulong)sizeof(fuse_removemapping_one)))
        {
            return Fail(Errno.EINVAL);
        }

        for (uint i = 0; i < remove.count; i++)
        {
            ulong offset = (ulong)sizeof(fuse_removemapping_in) + (i * (ulong)sizeof(fuse_removemapping_one));
            if (!r.TryRead(offset, out fuse_removemapping_one one) || !window.TryUnmap(one.moffset, one.len))
            {
                return Fail(Errno.EINVAL);
            }
        }

        return 0;
    }

    /// <summary>
    /// A store to a hole for which there is no block would end the VM: on a file system with little room, the blocks are taken before the
    /// guest may write. Its kernel makes an error the signal that such a store is on the host.
    /// </summary>
    // Safe: the kernel reads and writes locals of this call only.
    private static unsafe int FillHoles(int fd, ulong offset)
    {
        Libc.statfs_t system;
        if (Libc.fstatfs(fd, &system) != 0 || (ulong)system.f_bavail >= LittleRoom / (ulong)Math.Max(system.f_bsize, 1)
            || HostInode.Stat(fd, Libc.STATX_SIZE, out Libc.statx_t file) != 0 || file.stx_size <= offset)
        {
            return 0;
        }

        long length = (long)Math.Min(file.stx_size - offset, DaxWindow.SlotLength);
        if (Libc.fallocate(fd, Libc.FALLOC_FL_KEEP_SIZE, (long)offset, length) == 0)
        {
            return 0;
        }

        // A file system that cannot do it tells by another error.
        Errno error = Check.LastErrno;
        return error is Errno.ENOSPC or Errno.EDQUOT ? Fail(error) : 0;
    }

    private int CheckMapping(FuseRequest r, in InodePin inode, ulong handle, bool writable)
    {
        if (inode.FileType != Libc.S_IFREG)
        {
            return Fail(Errno.ENODEV);
        }

        ExportRules rules = fs.Exports.RulesOf(inode.Key);
        if (rules.ReadOnly && (writable || rules.Cache == FsCache.Exclusive))
        {
            return Fail(Errno.EROFS);
        }

        if (handle == NoHandle)
        {
            return 0;
        }

        if (!fs.Handles.TryPin(handle, r.NodeId, HandleKind.File, out HandlePin pin))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinned = pin;
        return pin.IsReadable && (pin.IsWritable || !writable) ? 0 : Fail(Errno.EACCES);
    }
}
