using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Fs.Protocol;

namespace MicroVm.Vmm.Fs;

/// <content>Reading directories.</content>
internal sealed unsafe partial class FuseServer
{
    // struct linux_dirent64 of getdents64(2): d_ino, d_off, d_reclen, d_type, d_name.
    private const int DirentOffset = 8;
    private const int DirentLength = 16;
    private const int DirentType = 18;
    private const int DirentName = 19;
    private const int SmallestDirent = 24;

    private static ulong Align8(ulong length) => (length + 7) & ~7ul;

    private int OpenDirectory(FuseRequest r)
    {
        if (IsSynthesised(r.NodeId))
        {
            return _handles.TryReserve()
                ? r.Reply(new fuse_open_out { fh = _handles.Add(r.NodeId, HandleKind.Root, -1, Libc.O_RDONLY) })
                : Fail(Errno.ENFILE);
        }

        if (!_inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        if (inode.FileType != Libc.S_IFDIR)
        {
            return Fail(Errno.ENOTDIR);
        }

        if (!_handles.TryReserve())
        {
            return Fail(Errno.ENFILE);
        }

        int fd = Reopen(inode.Fd, inode.FileType, Libc.O_RDONLY | Libc.O_DIRECTORY);
        if (fd < 0)
        {
            _handles.Release();
            return fd;
        }

        int error = AddHandle(inode, HandleKind.Directory, fd, Libc.O_RDONLY, out fuse_open_out reply);
        return error != 0 ? error : r.Reply(reply);
    }

    private int ReadDirectory(FuseRequest r, bool plus)
    {
        if (!r.TryRead(0, out fuse_read_in read) || read.size > Math.Min(r.Room, MaxWrite))
        {
            return Fail(Errno.EINVAL);
        }

        if (IsSynthesised(r.NodeId))
        {
            return ReadRoot(r, read, plus);
        }

        if (!_handles.TryPin(read.fh, r.NodeId, HandleKind.Directory, out HandlePin handle))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinnedHandle = handle;
        if (!_inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        return ReadEntries(r, handle, inode, _exports.RulesOf(inode.Key), read, plus);
    }

    private int ReadEntries(FuseRequest r, in HandlePin handle, in InodePin inode, ExportRules rules, in fuse_read_in read, bool plus)
    {
        // Where the last answer ended within a batch of getdents64, the descriptor is ahead of the guest.
        if (Libc.lseek(handle.Fd, (long)read.offset, Libc.SEEK_SET) < 0)
        {
            return Failed();
        }

        ulong used = 0;
        bool first = true;
        bool mayHaveDevices = !plus && DeviceMark.IsFolder(handle.Fd);
        while (true)
        {
            // A batch that is larger than what fits is read again by the next request. Records of an answer are longer
            // than the host's: by 5 bytes without attributes, by 133 with them.
            ulong room = read.size - used;
            ulong batch = Math.Min(plus ? room / 4 : room, FuseRequest.ScratchLength);
            nint n = Libc.getdents64(handle.Fd, r.Scratch, (nuint)Math.Max(batch, first ? 280ul : 0));
            if (n <= 0)
            {
                // EINVAL: not even one record fits into what is left.
                return n < 0 && first ? Failed() : (int)used;
            }

            first = false;
            for (int at = 0; at + SmallestDirent <= n;)
            {
                byte* record = r.Scratch + at;
                if (mayHaveDevices && record[DirentType] == Libc.S_IFREG >> 12)
                {
                    record[DirentType] = TypeOfChild(inode, record + DirentName);
                }

                ulong length = EmitEntry(r, inode, rules, record, used, read.size, plus);
                if (length == 0)
                {
                    return used == 0 ? Fail(Errno.EINVAL) : (int)used;
                }

                used += length;
                at += *(ushort*)(record + DirentLength);
            }
        }
    }

    /// <summary>The type of what getdents64(2) calls a regular file, which may be a marked one.</summary>
    private static byte TypeOfChild(in InodePin directory, byte* name)
    {
        Libc.statx_t stat = default; // DT_UNKNOWN of what has just gone
        if (Libc.statx(directory.Fd, name, StatFlags, Libc.STATX_BASIC_STATS, &stat) == 0 && DeviceMark.IsLikely(stat))
        {
            int fd = OpenBeneath(directory.Fd, name, Libc.O_PATH, 0);
            if (fd >= 0)
            {
                DeviceMark.Apply(fd, ref stat);
                _ = Libc.close(fd);
            }
        }

        return (byte)((stat.stx_mode & Libc.S_IFMT) >> 12);
    }

    /// <summary>Puts one entry of getdents64(2) into the answer.</summary>
    /// <returns>Its length there; 0 when there is no room for it.</returns>
    private ulong EmitEntry(FuseRequest r, in InodePin directory, ExportRules rules, byte* record, ulong at, ulong size, bool plus)
    {
        byte* name = record + DirentName;
        int length = new ReadOnlySpan<byte>(name, FuseNames.MaxLength + 1).IndexOf((byte)0);
        ulong head = (ulong)(sizeof(fuse_dirent) + (plus ? sizeof(fuse_entry_out) : 0));
        ulong total = Align8(head + (ulong)length);
        if (total > size - at)
        {
            return 0;
        }

        fuse_dirent dirent = new()
        {
            ino = NumberOf(directory.Key.Home, directory.Key.Device, *(ulong*)record),
            off = *(ulong*)(record + DirentOffset),
            namelen = (uint)length,
            type = record[DirentType],
        };
        if (plus)
        {
            // Node id 0 gives the name alone: for "." and "..", which carry no reference, and for what has just gone.
            ReadOnlySpan<byte> text = new(name, length);
            fuse_entry_out entry = default;
            if (!FuseNames.IsDot(text) && !FuseNames.IsDotDot(text) && LookupChild(directory, rules, name, out entry) != 0)
            {
                entry = default;
            }

            if (entry.nodeid != 0)
            {
                // A marked file is a device to the guest.
                dirent.ino = entry.attr.ino;
                dirent.type = (entry.attr.mode & Libc.S_IFMT) >> 12;
            }

            _ = r.Write(at, entry);
            at += (ulong)sizeof(fuse_entry_out);
        }

        _ = r.Write(at, dirent);
        at += (ulong)sizeof(fuse_dirent);
        _ = r.Write(at, name, length);
        ulong padding = 0;
        _ = r.Write(at + (ulong)length, (byte*)&padding, (int)(total - head) - length);
        return total;
    }

    /// <summary>Lists a synthesised directory: ".", "..", then the exports, whose numbers give the offsets.</summary>
    private int ReadRoot(FuseRequest r, in fuse_read_in read, bool plus)
    {
        if (!_handles.TryPin(read.fh, r.NodeId, HandleKind.Root, out HandlePin handle))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinned = handle;
        ulong used = 0;
        const ulong FirstExport = 2;
        for (ulong position = read.offset; position < FirstExport + (ulong)_exports.HighWater; position++)
        {
            Export? export = position < FirstExport ? null : _exports[(int)(position - FirstExport)];
            if (position >= FirstExport && (export is null || !IsIn(export, r.NodeId)))
            {
                continue;
            }

            ReadOnlySpan<byte> name = export is null ? (position == 0 ? "."u8 : ".."u8) : export.NameBytes;
            ulong head = (ulong)(sizeof(fuse_dirent) + (plus ? sizeof(fuse_entry_out) : 0));
            ulong total = Align8(head + (ulong)name.Length);
            if (total > read.size - used)
            {
                return used == 0 ? Fail(Errno.EINVAL) : (int)used;
            }

            // The host's inode number is told by LOOKUP; here any number will do that is not 0.
            fuse_dirent dirent = new()
            {
                ino = InodeNumbers.Root + position,
                off = position + 1,
                namelen = (uint)name.Length,
                type = export is null || export.FileType == Libc.S_IFDIR ? Libc.DT_DIR : Libc.DT_REG,
            };
            ulong at = used;
            if (plus)
            {
                _ = r.Write(at, default(fuse_entry_out));
                at += (ulong)sizeof(fuse_entry_out);
            }

            _ = r.Write(at, dirent);
            at += (ulong)sizeof(fuse_dirent);
            fixed (byte* bytes = name)
            {
                _ = r.Write(at, bytes, name.Length);
            }

            ulong padding = 0;
            _ = r.Write(at + (ulong)name.Length, (byte*)&padding, (int)(total - head) - name.Length);
            used += total;
        }

        return (int)used;
    }
}
