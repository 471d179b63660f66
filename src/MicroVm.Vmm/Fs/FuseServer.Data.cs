using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Fs.Protocol;

namespace MicroVm.Vmm.Fs;

/// <content>File contents: read and written straight from and to the guest's own segments.</content>
internal sealed unsafe partial class FuseServer
{
    /// <summary>Longest COPY_FILE_RANGE at once: the queue's other requests wait for it, and the guest asks again for the rest.</summary>
    private const ulong MaxCopy = 8ul << 20;

    /// <summary>What FALLOCATE does at once, before it looks whether the device is being reset.</summary>
    private const long AllocateAtOnce = 64L << 20;

    private static bool IsRange(ulong offset, ulong length) => offset <= long.MaxValue && length <= long.MaxValue - offset;

    private int Read(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_read_in read) || read.size > Math.Min(r.Room, MaxWrite))
        {
            return Fail(Errno.EINVAL);
        }

        if (!IsRange(read.offset, read.size))
        {
            return Fail(Errno.EINVAL);
        }

        if (!_handles.TryPin(read.fh, r.NodeId, HandleKind.File, out HandlePin handle))
        {
            return ReadFifo(r, read);
        }

        using HandlePin pinned = handle;
        uint done = 0;
        while (done < read.size)
        {
            // Short reads mean the end of the file to the guest, so that a list of segments too long for one call, or an
            // interruption, must not make one.
            int count = r.SlicePayload(done, read.size - done);
            nint n = Libc.preadv(handle.Fd, r.Vectors, count, (long)(read.offset + done));
            if (n < 0 && Check.LastErrno == Errno.EINTR)
            {
                continue;
            }

            if (n <= 0)
            {
                if (n < 0 && done == 0)
                {
                    return Failed();
                }

                break;
            }

            done += (uint)n;
        }

        Counters.BytesRead(done);
        return (int)done;
    }

    private int Write(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_write_in write) || write.size > MaxWrite
            || write.size != r.ArgumentLength - (ulong)sizeof(fuse_write_in))
        {
            return Fail(Errno.EINVAL);
        }

        if (!IsRange(write.offset, write.size))
        {
            return Fail(Errno.EFBIG);
        }

        if (!_handles.TryPin(write.fh, r.NodeId, HandleKind.File, out HandlePin handle))
        {
            return WriteFifo(r, write);
        }

        using HandlePin pinned = handle;
        SetIdState bits = BeforeChange(r, handle.Fd, (write.write_flags & Fuse.FUSE_WRITE_KILL_SUIDGID) != 0);
        int result = (write.write_flags & Fuse.FUSE_WRITE_CACHE) != 0 && (handle.Flags & Libc.O_APPEND) != 0
            ? WriteMappedPages(r, handle, write)
            : WriteTo(r, handle.Fd, write);
        AfterChange(r, handle.Fd, bits);
        return result;
    }

    /// <summary>
    /// Pages that a process changed in a mapping go to their place, but the kernel sends them with any handle of the file,
    /// and pwritev(2) on an O_APPEND one would append them.
    /// </summary>
    private int WriteMappedPages(FuseRequest r, in HandlePin handle, in fuse_write_in write)
    {
        int fd = Reopen(handle.Fd, Libc.S_IFREG, Libc.O_WRONLY);
        if (fd < 0)
        {
            return fd;
        }

        int result = WriteTo(r, fd, write);
        _ = Libc.close(fd);
        return result;
    }

    private int WriteTo(FuseRequest r, int fd, in fuse_write_in write)
    {
        uint done = 0;
        while (done < write.size)
        {
            int count = r.SliceArguments((ulong)sizeof(fuse_write_in) + done, write.size - done);
            nint n = Libc.pwritev(fd, r.Vectors, count, (long)(write.offset + done));
            if (n < 0 && Check.LastErrno == Errno.EINTR)
            {
                continue;
            }

            if (n <= 0)
            {
                if (n < 0 && done == 0)
                {
                    return Failed();
                }

                break;
            }

            done += (uint)n;
        }

        Counters.BytesWritten(done);
        return r.Reply(new fuse_write_out { size = done });
    }

    private int Sync(FuseRequest r, bool directory)
    {
        if (!r.TryRead(0, out fuse_fsync_in sync))
        {
            return Fail(Errno.EINVAL);
        }

        if (directory && IsSynthesised(r.NodeId))
        {
            return 0;
        }

        if (!_handles.TryPin(sync.fh, r.NodeId, directory ? HandleKind.Directory : HandleKind.File, out HandlePin handle))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinned = handle;
        return Result((sync.fsync_flags & Fuse.FUSE_FSYNC_FDATASYNC) != 0 ? Libc.fdatasync(handle.Fd) : Libc.fsync(handle.Fd));
    }

    /// <summary>Writes back the file systems that exports lie on: of one inode, or of all writable exports for the root.</summary>
    private int SyncFs(FuseRequest r)
    {
        if (!IsSynthesised(r.NodeId))
        {
            if (!_inodes.TryPin(r.NodeId, out InodePin inode))
            {
                return Fail(Errno.ESTALE);
            }

            // Nothing there is the guest's to write back, and the host's file system is not its to keep busy.
            using InodePin pinned = inode;
            return _exports.RulesOf(inode.Key).ReadOnly ? Fail(Errno.EROFS) : SyncFsOf(inode.Fd, inode.FileType);
        }

        int result = 0;
        for (int i = 0; i < _exports.HighWater; i++)
        {
            if (_exports[i] is { Rules.ReadOnly: false, FileType: not Libc.S_IFIFO } export && IsIn(export, r.NodeId))
            {
                int fd = _exports.Duplicate(export, out _);
                if (fd >= 0)
                {
                    int error = SyncFsOf(fd, export.FileType);
                    result = result == 0 ? error : result;
                    _ = Libc.close(fd);
                }
            }
        }

        return result;
    }

    private int SyncFsOf(int path, uint type)
    {
        int fd = Reopen(path, type, Libc.O_RDONLY);
        if (fd < 0)
        {
            return fd;
        }

        int error = Result(Libc.syncfs(fd));
        _ = Libc.close(fd);
        return error;
    }

    private int Allocate(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_fallocate_in allocate) || !IsRange(allocate.offset, allocate.length))
        {
            return Fail(Errno.EINVAL);
        }

        const uint Known = Libc.FALLOC_FL_KEEP_SIZE | Libc.FALLOC_FL_PUNCH_HOLE | Libc.FALLOC_FL_ZERO_RANGE
            | Libc.FALLOC_FL_COLLAPSE_RANGE | Libc.FALLOC_FL_INSERT_RANGE;
        if ((allocate.mode & ~Known) != 0)
        {
            return Fail(Errno.EOPNOTSUPP);
        }

        if (!_handles.TryPin(allocate.fh, r.NodeId, HandleKind.File, out HandlePin handle))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinned = handle;
        SetIdState bits = BeforeChange(r, handle.Fd, kill: r.Header.uid != 0);
        long offset = (long)allocate.offset;
        long end = offset + (long)allocate.length;
        int error;
        do
        {
            long length = Math.Min(end - offset, AllocateAtOnce);
            error = r.IsStopping ? Fail(Errno.EINTR) : Result(Libc.fallocate(handle.Fd, (int)allocate.mode, offset, length));
            offset += length;
        }
        while (error == 0 && offset < end);
        AfterChange(r, handle.Fd, bits);
        return error;
    }

    private int Seek(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_lseek_in seek)
            || seek.whence is not ((uint)Libc.SEEK_DATA or (uint)Libc.SEEK_HOLE or (uint)Libc.SEEK_END))
        {
            return Fail(Errno.EINVAL);
        }

        if (!_handles.TryPin(seek.fh, r.NodeId, HandleKind.File, out HandlePin handle))
        {
            return Fail(Errno.EBADF);
        }

        // The descriptor's own position is used by nothing else.
        using HandlePin pinned = handle;
        long position = Libc.lseek(handle.Fd, (long)seek.offset, (int)seek.whence);
        return position < 0 ? Failed() : r.Reply(new fuse_lseek_out { offset = (ulong)position });
    }

    private int CopyRange(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_copy_file_range_in copy) || copy.flags != 0)
        {
            return Fail(Errno.EINVAL);
        }

        ulong length = Math.Min(copy.len, MaxCopy);
        if (!IsRange(copy.off_in, length) || !IsRange(copy.off_out, length))
        {
            return Fail(Errno.EINVAL);
        }

        if (!_handles.TryPin(copy.fh_in, r.NodeId, HandleKind.File, out HandlePin source))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinnedSource = source;
        if (!_handles.TryPin(copy.fh_out, copy.nodeid_out, HandleKind.File, out HandlePin target))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinnedTarget = target;
        SetIdState bits = BeforeChange(r, target.Fd, kill: r.Header.uid != 0);
        long from = (long)copy.off_in;
        long to = (long)copy.off_out;
        nint n = Libc.copy_file_range(source.Fd, &from, target.Fd, &to, (nuint)length, 0);
        int result = n < 0 ? Failed() : r.Reply(new fuse_write_out { size = (uint)n });
        AfterChange(r, target.Fd, bits);
        return result;
    }
}
