using System.Runtime.InteropServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Virtio;
using MicroVm.VirtioFs.Fifos;
using MicroVm.VirtioFs.Protocol;

namespace MicroVm.VirtioFs.Waiting;

/// <summary>
/// The one owner of requests that wait for a lock (SETLKW) or for a FIFO's other end (OPEN_FIFO). Their chains stay with the device, and the
/// queue goes on; the thread of the request queue tries them again when this VM gives a lock up, and by a timer for what is held
/// elsewhere. Used by that thread; any thread may call <see cref="Interrupt"/>.
/// </summary>
internal sealed class WaitingRequests : IDisposable
{
    /// <summary>Most requests that wait at once, a quarter of the queue; then ENOLCK.</summary>
    public const int Max = 128;

    private const int HeaderLength = 16; // struct fuse_out_header
    private const int AnswerLength = HeaderLength + 16; // with struct fuse_open_out
    private readonly Lock _gate = new();
    private readonly EarlyInterrupts _early = new();
    private readonly unsafe Waiter* _waiters = (Waiter*)NativeMemory.AllocZeroed(Max, (nuint)sizeof(Waiter));
    private volatile int _count;

    // Safe: frees what the initialiser made, once.
    unsafe ~WaitingRequests() => NativeMemory.Free(_waiters);

    /// <summary>How many wait.</summary>
    public int Count => _count;

    /// <summary>Signalled when one need not wait any more.</summary>
    public EventFd Wake { get; } = new();

    /// <summary>Says when they are to be tried again.</summary>
    public TimerFd Timer { get; } = new();

    /// <summary>Lets the request of a chain wait.</summary>
    /// <param name="request">What for.</param>
    /// <param name="unique">The request's number.</param>
    /// <param name="chain">The request.</param>
    /// <param name="blocker">Who has it in this VM; 0 when it is held elsewhere.</param>
    /// <returns>0, or the negative errno to answer with.</returns>
    // Safe: _count is below Max; a slice of an answer has at most one vector for each of its bytes.
    public unsafe int Add(in WaitingRequest request, ulong unique, DescriptorChain chain, ulong blocker)
    {
        lock (_gate)
        {
            if (_early.TryTake(unique))
            {
                return -(int)Errno.EINTR;
            }

            if (_count == Max)
            {
                return -(int)Errno.ENOLCK;
            }

            if (IsDeadlock(request, blocker))
            {
                return -(int)Errno.EDEADLK;
            }

            Waiter* waiter = _waiters + _count;
            waiter->Request = request;
            waiter->Unique = unique;
            waiter->Head = chain.Head;
            waiter->BlockedBy = blocker;
            waiter->IsInterrupted = false;
            int length = request.IsFifo ? AnswerLength : HeaderLength;
            waiter->SegmentCount = chain.SliceWritable(0, (ulong)length, new Span<Libc.iovec>(waiter->Segments, AnswerLength));
            _count++;
            return 0;
        }
    }

    /// <summary>Ends the waiting of a request. Any thread.</summary>
    // Safe: the index is below _count.
    public unsafe void Interrupt(ulong unique)
    {
        lock (_gate)
        {
            for (int i = 0; i < _count; i++)
            {
                if (_waiters[i].Unique == unique)
                {
                    _waiters[i].IsInterrupted = true;
                    Wake.Signal();
                    return;
                }
            }

            _early.Add(unique);
        }
    }

    /// <summary>Ends the waiting of all: their session is over.</summary>
    // Safe: the index is below _count.
    public unsafe void InterruptAll()
    {
        lock (_gate)
        {
            for (int i = 0; i < _count; i++)
            {
                _waiters[i].IsInterrupted = true;
            }

            _early.Clear();
            Wake.Signal();
        }
    }

    /// <summary>Forgets all: their queue is gone.</summary>
    public void Clear() => _count = 0;

    /// <summary>What waiter <paramref name="index"/> waits for, and whether it need not any more.</summary>
    // Safe: callers have an index below Count.
    public unsafe WaitingRequest At(int index, out bool isInterrupted)
    {
        lock (_gate)
        {
            isInterrupted = _waiters[index].IsInterrupted;
            return _waiters[index].Request;
        }
    }

    /// <summary>Waiter <paramref name="index"/> has tried again to open its FIFO and may have got a handle.</summary>
    // Safe: as for At.
    public unsafe void Update(int index, in FifoOpening opening)
    {
        lock (_gate)
        {
            _waiters[index].Request = new WaitingRequest(opening);
        }
    }

    /// <summary>Waiter <paramref name="index"/> has tried again and was in the way of <paramref name="blocker"/>.</summary>
    /// <returns>0, or -EDEADLK.</returns>
    // Safe: as for At.
    public unsafe int StillBlocked(int index, ulong blocker)
    {
        lock (_gate)
        {
            _waiters[index].BlockedBy = blocker;
            return IsDeadlock(_waiters[index].Request, blocker) ? -(int)Errno.EDEADLK : 0;
        }
    }

    /// <summary>Takes a waiter out and writes its answer.</summary>
    /// <param name="index">Which.</param>
    /// <param name="error">0 or a negative errno.</param>
    /// <returns>Its chain's head, for the used ring, and how many bytes were written.</returns>
    // Safe: as for At; the segments were checked to lie in RAM, and what is copied stays within them and the answer.
    public unsafe (ushort Head, uint Written) Finish(int index, int error)
    {
        lock (_gate)
        {
            Waiter* waiter = _waiters + index;
            int length = waiter->Request.IsFifo && error == 0 ? AnswerLength : HeaderLength;
            byte* answer = stackalloc byte[AnswerLength];
            *(Protocol.fuse_out_header*)answer = new() { len = (uint)length, error = error, unique = waiter->Unique };
            *(Protocol.fuse_open_out*)(answer + HeaderLength) = new() { fh = waiter->Request.Fifo.Handle };
            byte* from = answer;
            Libc.iovec* segments = (Libc.iovec*)waiter->Segments;
            for (int i = 0; i < waiter->SegmentCount && from < answer + length; i++)
            {
                int count = (int)Math.Min(segments[i].iov_len, (ulong)(answer + length - from));
                new ReadOnlySpan<byte>(from, count).CopyTo(new Span<byte>(segments[i].iov_base, count));
                from += count;
            }

            ushort head = waiter->Head;
            _count--;
            new ReadOnlySpan<Waiter>(waiter + 1, _count - index).CopyTo(new Span<Waiter>(waiter, _count - index));
            return (head, (uint)length);
        }
    }

    /// <inheritdoc/>
    // Safe: frees what the initialiser made; the device disposes of it once.
    public unsafe void Dispose()
    {
        Wake.Dispose();
        Timer.Dispose();
        NativeMemory.Free(_waiters);
        GC.SuppressFinalize(this);
    }

    /// <summary>Follows who waits for whom, from the blocker on, and comes back to the owner that would wait.</summary>
    // Safe: the indices are below _count.
    private unsafe bool IsDeadlock(in WaitingRequest request, ulong blocker)
    {
        for (int steps = 0; steps <= _count && blocker != 0 && request.IsRecordLock; steps++)
        {
            if (blocker == request.Lock.Owner)
            {
                return true;
            }

            ulong next = 0;
            for (int i = 0; i < _count && next == 0; i++)
            {
                next = _waiters[i].Request is { IsRecordLock: true } other && other.Lock.Owner == blocker ? _waiters[i].BlockedBy : 0;
            }

            blocker = next;
        }

        return false;
    }

    private struct Waiter
    {
        public WaitingRequest Request;
        public ulong Unique;
        public ulong BlockedBy;
        public unsafe fixed ulong Segments[2 * AnswerLength]; // struct iovec, one for each byte at worst
        public int SegmentCount;
        public ushort Head;
        public bool IsInterrupted;
    }
}
