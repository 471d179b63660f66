using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Handles;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>READ and WRITE: file contents go straight from and to the guest's own segments.</summary>
internal sealed class DataOperations(FsContext fs, SetIdBits setId, FifoOperations fifos)
{
    // Safe: the vectors are the request's, and lead to buffers that the chain checked.
    public unsafe int Read(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_read_in read) || read.size > Math.Min(r.Room, FsSession.MaxWrite))
        {
            return Fail(Errno.EINVAL);
        }

        if (!FileRange.IsValid(read.offset, read.size))
        {
            return Fail(Errno.EINVAL);
        }

        if (!fs.Handles.TryPin(read.fh, r.NodeId, HandleKind.File, out HandlePin handle))
        {
            return fifos.Transfer(r, read.fh, read.size, isWrite: false);
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

        fs.Counters.BytesRead(done);
        return (int)done;
    }

    // Safe: the size of a struct is asked for, nothing is followed.
    public unsafe int Write(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_write_in write) || write.size > FsSession.MaxWrite
            || write.size != r.ArgumentLength - (ulong)sizeof(fuse_write_in))
        {
            return Fail(Errno.EINVAL);
        }

        if (!FileRange.IsValid(write.offset, write.size))
        {
            return Fail(Errno.EFBIG);
        }

        if (!fs.Handles.TryPin(write.fh, r.NodeId, HandleKind.File, out HandlePin handle))
        {
            return fifos.Transfer(r, write.fh, write.size, isWrite: true);
        }

        using HandlePin pinned = handle;
        SetIdState bits = setId.BeforeChange(r, handle.Fd, (write.write_flags & Fuse.FUSE_WRITE_KILL_SUIDGID) != 0);
        int result = (write.write_flags & Fuse.FUSE_WRITE_CACHE) != 0 && (handle.Flags & Libc.O_APPEND) != 0
            ? WriteMappedPages(r, handle, write)
            : WriteTo(r, handle.Fd, write);
        SetIdBits.AfterChange(r, handle.Fd, bits);
        return result;
    }

    /// <summary>
    /// Pages that a process changed in a mapping go to their place, but the kernel sends them with any handle of the file,
    /// and pwritev(2) on an O_APPEND one would append them.
    /// </summary>
    private int WriteMappedPages(FuseRequest r, in HandlePin handle, in fuse_write_in write)
    {
        int fd = fs.Reopen(handle.Fd, Libc.S_IFREG, Libc.O_WRONLY);
        if (fd < 0)
        {
            return fd;
        }

        int result = WriteTo(r, fd, write);
        _ = Libc.close(fd);
        return result;
    }

    // Safe: as for Read.
    private unsafe int WriteTo(FuseRequest r, int fd, in fuse_write_in write)
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

        fs.Counters.BytesWritten(done);
        return r.Reply(new fuse_write_out { size = done });
    }
}
