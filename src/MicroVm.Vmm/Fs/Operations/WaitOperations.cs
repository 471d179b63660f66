using MicroVm.Linux;
using MicroVm.Vmm.Fs.Locks;
using static MicroVm.Vmm.Fs.Protocol.FuseResult;

namespace MicroVm.Vmm.Fs.Operations;

/// <summary>Tries requests again that wait for a lock or for a FIFO's other end.</summary>
internal sealed class WaitOperations(FsContext fs, LockOperations locks, FifoOperations fifos)
{
    /// <summary>Tries waiter <paramref name="index"/> again.</summary>
    /// <returns>What to answer it with; -EAGAIN: nothing yet.</returns>
    public int Retry(int index)
    {
        LockRequest request = fs.Waiters.At(index, out bool isInterrupted);
        if (isInterrupted)
        {
            fifos.GiveUp(request);
            return Fail(Errno.EINTR);
        }

        if (request.IsFifo)
        {
            int opened = fifos.TryOpen(ref request);
            fs.Waiters.SetHandle(index, request.Handle);
            return opened;
        }

        int error = locks.TryLock(request, out ulong blocker);
        int deadlock = error == Fail(Errno.EAGAIN) ? fs.Waiters.StillBlocked(index, blocker) : 0;
        return deadlock != 0 ? deadlock : error;
    }
}
