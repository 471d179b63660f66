using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Exports;
using MicroVm.VirtioFs.Handles;
using MicroVm.VirtioFs.HostFiles;
using MicroVm.VirtioFs.Inodes;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>OPENDIR, READDIR and READDIRPLUS.</summary>
internal sealed class DirectoryOperations(FsContext fs, EntryLookup entries, GuestAttributes attributes, HandleOpener opener, RootListing root)
{
    // struct linux_dirent64 of getdents64(2): d_ino, d_off, d_reclen, d_type, d_name.
    private const int DirentOffset = 8;
    private const int DirentLength = 16;
    private const int DirentType = 18;
    private const int DirentName = 19;
    private const int SmallestDirent = 24;

    public int OpenDirectory(FuseRequest r)
    {
        if (fs.Synthetic.Is(r.NodeId))
        {
            return fs.Handles.TryReserve()
                ? r.Reply(new fuse_open_out { fh = fs.Handles.Add(r.NodeId, HandleKind.Root, -1, Libc.O_RDONLY) })
                : Fail(Errno.ENFILE);
        }

        if (!fs.Inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        if (inode.FileType != Libc.S_IFDIR)
        {
            return Fail(Errno.ENOTDIR);
        }

        if (!fs.Handles.TryReserve())
        {
            return Fail(Errno.ENFILE);
        }

        int fd = fs.Reopen(inode.Fd, inode.FileType, Libc.O_RDONLY | Libc.O_DIRECTORY);
        if (fd < 0)
        {
            fs.Handles.Release();
            return fd;
        }

        int error = opener.AddHandle(inode, HandleKind.Directory, fd, Libc.O_RDONLY, out fuse_open_out reply);
        return error != 0 ? error : r.Reply(reply);
    }

    public int ReadDirectory(FuseRequest r, bool plus)
    {
        if (!r.TryRead(0, out fuse_read_in read) || read.size > Math.Min(r.Room, FsSession.MaxWrite))
        {
            return Fail(Errno.EINVAL);
        }

        if (fs.Synthetic.Is(r.NodeId))
        {
            return root.Read(r, read, plus);
        }

        if (!fs.Handles.TryPin(read.fh, r.NodeId, HandleKind.Directory, out HandlePin handle))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinnedHandle = handle;
        if (!fs.Inodes.TryPin(r.NodeId, out InodePin inode))
        {
            return Fail(Errno.ESTALE);
        }

        using InodePin pinned = inode;
        return ReadEntries(r, handle, inode, fs.Exports.RulesOf(inode.Key), read, plus);
    }

    // Safe: the kernel writes whole records, n bytes in all, each with a name that ends in a NUL.
    private unsafe int ReadEntries(FuseRequest r, in HandlePin handle, in InodePin inode, ExportRules rules, in fuse_read_in read, bool plus)
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
    // Safe: the name is that of a record; the kernel writes a local.
    private static unsafe byte TypeOfChild(in InodePin directory, byte* name)
    {
        Libc.statx_t stat = default; // DT_UNKNOWN of what has just gone
        if (Libc.statx(directory.Fd, name, HostInode.StatFlags, Libc.STATX_BASIC_STATS, &stat) == 0 && DeviceMark.IsLikely(stat))
        {
            int fd = HostInode.OpenBeneath(directory.Fd, name, Libc.O_PATH, 0);
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
    // Safe: the record is whole: ReadEntries looked that its head lies in what the kernel wrote.
    private unsafe ulong EmitEntry(FuseRequest r, in InodePin directory, ExportRules rules, byte* record, ulong at, ulong size, bool plus)
    {
        byte* name = record + DirentName;
        int length = new ReadOnlySpan<byte>(name, FuseNames.MaxLength + 1).IndexOf((byte)0);
        ulong total = DirentWriter.LengthOf(length, plus);
        if (total > size - at)
        {
            return 0;
        }

        fuse_dirent dirent = new()
        {
            ino = attributes.NumberOf(directory.Key.Home, directory.Key.Device, *(ulong*)record),
            off = *(ulong*)(record + DirentOffset),
            namelen = (uint)length,
            type = record[DirentType],
        };
        fuse_entry_out entry = default;
        if (plus)
        {
            // Node id 0 gives the name alone: for "." and "..", which carry no reference, and for what has just gone.
            ReadOnlySpan<byte> text = new(name, length);
            if (!FuseNames.IsDot(text) && !FuseNames.IsDotDot(text) && entries.LookupChild(directory, rules, name, out entry) != 0)
            {
                entry = default;
            }

            if (entry.nodeid != 0)
            {
                // A marked file is a device to the guest.
                dirent.ino = entry.attr.ino;
                dirent.type = (entry.attr.mode & Libc.S_IFMT) >> 12;
            }
        }

        DirentWriter.Write(r, at, plus, entry, dirent, name);
        return total;
    }
}
