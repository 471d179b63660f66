using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.Handles;
using MicroVm.VirtioFs.Locks;
using MicroVm.VirtioFs.Protocol;
using MicroVm.VirtioFs.Requests;
using MicroVm.VirtioFs.Waiting;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>GETLK, SETLK and SETLKW: fcntl(2)'s locks on descriptors of their owners, flock(2)'s on the handle's own.</summary>
internal sealed class LockOperations(FsContext fs)
{
    public int Get(FuseRequest r)
    {
        if (!TryReadLock(r, out LockRequest request) || request.Type == Libc.F_UNLCK || request.IsFlock)
        {
            return Fail(Errno.EINVAL);
        }

        if (!fs.Handles.TryPin(request.Handle, request.Node, HandleKind.File, out HandlePin handle))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinned = handle;
        int error = fs.Locks.Get(request, handle, out fuse_file_lock found);
        return error != 0 ? error : r.Reply(new fuse_lk_out { lk = found });
    }

    public int Set(FuseRequest r, bool wait)
    {
        if (!TryReadLock(r, out LockRequest request))
        {
            return Fail(Errno.EINVAL);
        }

        int error = TryLock(request, out ulong blocker);
        if (error != Fail(Errno.EAGAIN) || !wait || !r.MayWait)
        {
            return error;
        }

        error = fs.Waiting.Add(new WaitingRequest(request), r.Header.unique, r.Chain, blocker);
        return error != 0 ? error : FuseRequest.Deferred;
    }

    public int TryLock(in LockRequest request, out ulong blocker)
    {
        blocker = 0;
        if (!fs.Handles.TryPin(request.Handle, request.Node, HandleKind.File, out HandlePin handle)
            && !(request.IsFlock && fs.Handles.TryPin(request.Handle, request.Node, HandleKind.Directory, out handle)))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinned = handle;
        if (!request.IsFlock)
        {
            return fs.Locks.Set(request, handle, out blocker);
        }

        int error = Result(Libc.flock(handle.Fd, request.FlockOperation));
        if (request.Type != Libc.F_WRLCK && error == 0)
        {
            fs.Locks.NoteRelease();
        }

        return error;
    }

    private static bool TryReadLock(FuseRequest r, out LockRequest request)
    {
        bool valid = r.TryRead(0, out fuse_lk_in lk)
            && lk.lk.type is Libc.F_RDLCK or Libc.F_WRLCK or Libc.F_UNLCK
            && lk.lk.start <= lk.lk.end && lk.lk.end <= long.MaxValue;
        request = new LockRequest
        {
            Node = r.NodeId,
            Owner = lk.owner,
            Handle = lk.fh,
            Type = lk.lk.type,
            Start = (long)lk.lk.start,
            End = (long)lk.lk.end,
            Pid = lk.lk.pid,
            IsFlock = (lk.lk_flags & Fuse.FUSE_LK_FLOCK) != 0,
        };
        return valid;
    }
}
