using MicroVm.VirtioFs.Fifos;
using MicroVm.VirtioFs.Locks;

namespace MicroVm.VirtioFs.Waiting;

/// <summary>What a request waits for: a lock (SETLKW), or the other end of a FIFO (OPEN_FIFO).</summary>
internal readonly struct WaitingRequest
{
    /// <summary>Waits for a lock.</summary>
    public WaitingRequest(in LockRequest lockRequest) => Lock = lockRequest;

    /// <summary>Waits for a FIFO's other end.</summary>
    public WaitingRequest(in FifoOpening fifo)
    {
        Fifo = fifo;
        IsFifo = true;
    }

    /// <summary>It waits for a FIFO's other end.</summary>
    public bool IsFifo { get; }

    /// <summary>The lock; only where it is not a FIFO.</summary>
    public LockRequest Lock { get; }

    /// <summary>The FIFO; only where <see cref="IsFifo"/> says so.</summary>
    public FifoOpening Fifo { get; }

    /// <summary>It waits for a lock of fcntl(2), whose owners can block each other: such waits can be a deadlock.</summary>
    public bool IsRecordLock => !IsFifo && !Lock.IsFlock;
}
