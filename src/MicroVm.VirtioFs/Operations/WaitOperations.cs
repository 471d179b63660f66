using MicroVm.Linux;
using MicroVm.VirtioFs.Fifos;
using MicroVm.VirtioFs.Locks;
using MicroVm.VirtioFs.Waiting;
using static MicroVm.VirtioFs.Protocol.FuseResult;

namespace MicroVm.VirtioFs.Operations;

/// <summary>Tries requests again that wait for a lock or for a FIFO's other end.</summary>
internal sealed class WaitOperations(FsContext fs, LockOperations locks, FifoOperations fifos)
{
    /// <summary>Tries waiting request <paramref name="index"/> again.</summary>
    /// <returns>What to answer it with; -EAGAIN: nothing yet.</returns>
    public int Retry(int index)
    {
        WaitingRequest request = fs.Waiting.At(index, out bool isInterrupted);
        return request.IsFifo ? RetryFifo(index, request.Fifo, isInterrupted)
            : isInterrupted ? Fail(Errno.EINTR)
            : RetryLock(index, request.Lock);
    }

    private int RetryFifo(int index, FifoOpening opening, bool isInterrupted)
    {
        if (isInterrupted)
        {
            fifos.GiveUp(opening);
            return Fail(Errno.EINTR);
        }

        int error = fifos.TryOpen(ref opening);
        fs.Waiting.Update(index, opening);
        return error;
    }

    private int RetryLock(int index, in LockRequest request)
    {
        int error = locks.TryLock(request, out ulong blocker);
        int deadlock = error == Fail(Errno.EAGAIN) ? fs.Waiting.StillBlocked(index, blocker) : 0;
        return deadlock != 0 ? deadlock : error;
    }
}
