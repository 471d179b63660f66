using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Fs.Protocol;

namespace MicroVm.Vmm.Fs;

/// <content>Locks: fcntl(2)'s on descriptors of their owners, flock(2)'s on the handle's own.</content>
internal sealed unsafe partial class FuseServer
{
    /// <summary>Requests that wait for a lock.</summary>
    public LockWaiters Waiters { get; } = new();

    /// <summary>How many ranges the guest has locked.</summary>
    public int LockCount => _locks.Count;

    /// <summary>See <see cref="LockTable.Releases"/>.</summary>
    public int LockReleases => _locks.Releases;

    /// <summary>Tries waiter <paramref name="index"/> again.</summary>
    /// <returns>What to answer it with; -EAGAIN: nothing yet.</returns>
    public int RetryWaiter(int index)
    {
        LockRequest request = Waiters.At(index, out bool isInterrupted);
        if (isInterrupted)
        {
            GiveUpFifo(request);
            return Fail(Errno.EINTR);
        }

        if (request.IsFifo)
        {
            int opened = TryOpenFifo(ref request);
            Waiters.SetHandle(index, request.Handle);
            return opened;
        }

        int error = TryLock(request, out ulong blocker);
        int deadlock = error == Fail(Errno.EAGAIN) ? Waiters.StillBlocked(index, blocker) : 0;
        return deadlock != 0 ? deadlock : error;
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

    private int GetLock(FuseRequest r)
    {
        if (!TryReadLock(r, out LockRequest request) || request.Type == Libc.F_UNLCK || request.IsFlock)
        {
            return Fail(Errno.EINVAL);
        }

        if (!_handles.TryPin(request.Handle, request.Node, HandleKind.File, out HandlePin handle))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinned = handle;
        int error = _locks.Get(request, handle, out fuse_file_lock found);
        return error != 0 ? error : r.Reply(new fuse_lk_out { lk = found });
    }

    private int SetLock(FuseRequest r, bool wait)
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

        error = Waiters.Add(request, r.Header.unique, r.Chain, blocker);
        return error != 0 ? error : FuseRequest.Deferred;
    }

    private int TryLock(in LockRequest request, out ulong blocker)
    {
        blocker = 0;
        if (!_handles.TryPin(request.Handle, request.Node, HandleKind.File, out HandlePin handle)
            && !(request.IsFlock && _handles.TryPin(request.Handle, request.Node, HandleKind.Directory, out handle)))
        {
            return Fail(Errno.EBADF);
        }

        using HandlePin pinned = handle;
        if (!request.IsFlock)
        {
            return _locks.Set(request, handle, out blocker);
        }

        int error = Result(Libc.flock(handle.Fd, request.FlockOperation));
        if (request.Type != Libc.F_WRLCK && error == 0)
        {
            _locks.NoteRelease();
        }

        return error;
    }
}
