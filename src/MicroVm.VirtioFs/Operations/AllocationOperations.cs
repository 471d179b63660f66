using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Handles;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>FALLOCATE, LSEEK and COPY_FILE_RANGE.</summary>
internal sealed class AllocationOperations(FsContext fs, SetIdBits setId)
{
    /// <summary>Longest COPY_FILE_RANGE at once: the queue's other requests wait for it, and the guest asks again for the rest.</summary>
    private const ulong MaxCopy = 8ul << 20;

    /// <summary>What FALLOCATE does at once, before it looks whether the device is being reset.</summary>
    private const long AllocateAtOnce = 64L << 20;

    public int Allocate(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_fallocate_in allocate) || !FileRange.IsValid(allocate.offset, allocate.length))
        {
            return Fail(Errno.EINVAL);
        }

        const uint Known = Libc.FALLOC_FL_KEEP_SIZE | Libc.FALLOC_FL_PUNCH_HOLE | Libc.FALLOC_FL_ZERO_RANGE
            | Libc.FALLOC_FL_COLLAPSE_RANGE | Libc.FALLOC_FL_INSERT_RANGE;
        if ((allocate.mode & ~Known) != 0)
        {
            return Fail(Errno.EOPNOTSUPP);
        }

        if (!fs.Handles.TryPin(allocate.fh, r.NodeId, HandleKind.File, out HandlePin handle))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinned = handle;
        SetIdState bits = setId.BeforeChange(r, handle.Fd, kill: r.Header.uid != 0);
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
        SetIdBits.AfterChange(r, handle.Fd, bits);
        return error;
    }

    public int Seek(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_lseek_in seek)
            || seek.whence is not ((uint)Libc.SEEK_DATA or (uint)Libc.SEEK_HOLE or (uint)Libc.SEEK_END))
        {
            return Fail(Errno.EINVAL);
        }

        if (!fs.Handles.TryPin(seek.fh, r.NodeId, HandleKind.File, out HandlePin handle))
        {
            return Fail(Errno.EBADF);
        }

        // The descriptor's own position is used by nothing else.
        using HandlePin pinned = handle;
        long position = Libc.lseek(handle.Fd, (long)seek.offset, (int)seek.whence);
        return position < 0 ? Failed() : r.Reply(new fuse_lseek_out { offset = (ulong)position });
    }

    // Safe: the kernel reads and writes locals of this call only.
    public unsafe int CopyRange(FuseRequest r)
    {
        if (!r.TryRead(0, out fuse_copy_file_range_in copy) || copy.flags != 0)
        {
            return Fail(Errno.EINVAL);
        }

        ulong length = Math.Min(copy.len, MaxCopy);
        if (!FileRange.IsValid(copy.off_in, length) || !FileRange.IsValid(copy.off_out, length))
        {
            return Fail(Errno.EINVAL);
        }

        if (!fs.Handles.TryPin(copy.fh_in, r.NodeId, HandleKind.File, out HandlePin source))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinnedSource = source;
        if (!fs.Handles.TryPin(copy.fh_out, copy.nodeid_out, HandleKind.File, out HandlePin target))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinnedTarget = target;
        SetIdState bits = setId.BeforeChange(r, target.Fd, kill: r.Header.uid != 0);
        long from = (long)copy.off_in;
        long to = (long)copy.off_out;
        nint n = Libc.copy_file_range(source.Fd, &from, target.Fd, &to, (nuint)length, 0);
        int result = n < 0 ? Failed() : r.Reply(new fuse_write_out { size = (uint)n });
        SetIdBits.AfterChange(r, target.Fd, bits);
        return result;
    }
}
