using System.Runtime.InteropServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Virtio;
using MicroVm.VirtioFs.Fifos;
using MicroVm.VirtioFs.Protocol;

namespace MicroVm.VirtioFs.Events;

/// <summary>
/// What others do to inodes that the guest's processes watch: taken from inotify(7), without what the guest did itself, and kept
/// until the guest's kernel asks (EVENTS). That request waits here; it is answered at most a hundred times a second.
/// </summary>
/// <remarks>
/// Any thread. Bounded: <see cref="HostWatches.Max"/> inodes, and <see cref="PendingEvents.Size"/> bytes of events, beyond which
/// events are lost, counted, and told as IN_Q_OVERFLOW.
/// </remarks>
internal sealed class HostEvents : IDisposable
{
    private const int AnswerLength = 4096; // FUSE_EVENTS_SIZE of the guest's kernel
    private const uint FifoEvent = 1u << 31; // FUSE_EVENT_POLL of the guest's kernel
    private const int MostFifos = AnswerLength / 2 / 24;
    private const int HeaderLength = 16; // struct fuse_out_header
    private const int MaxSegments = 8;
    private const int MostReads = 64;
    private const long PauseMilliseconds = 10;

    private readonly Lock _gate = new();
    private readonly HostWatches _watches = new();
    private readonly PendingEvents _pending = new();
    private readonly unsafe byte* _read = (byte*)NativeMemory.Alloc(AnswerLength);
    private readonly unsafe Libc.iovec* _segments = (Libc.iovec*)NativeMemory.Alloc(MaxSegments, (nuint)sizeof(Libc.iovec));
    private volatile int _watched;
    private int _segmentCount;
    private ulong _unique;
    private ushort _head;
    private bool _isWaiting;
    private bool _isEnding;
    private bool _isPausing;
    private long _lost;

    ~HostEvents() => Free();

    /// <summary>The inotify instance; null when none could be had.</summary>
    public SafeFd? Fd => _watches.Fd;

    /// <summary>Ends the pause after an answer.</summary>
    public TimerFd Timer { get; } = new();

    /// <summary>How many inodes are watched.</summary>
    public int Watched => _watched;

    /// <summary>How many events were lost.</summary>
    public long Lost => Volatile.Read(ref _lost);

    /// <summary>Watches an inode, or no more; <see cref="HostWatches.Add"/>.</summary>
    public int Watch(ulong node, int fd, uint mask)
    {
        lock (_gate)
        {
            int error = 0;
            if (mask != 0)
            {
                error = _watches.Add(node, fd, mask);
            }
            else
            {
                _watches.Remove(node);
            }

            _watched = _watches.Count;
            return error;
        }
    }

    /// <summary>Whether two descriptors are of one inode (<see cref="HostWatches.AreOne"/>).</summary>
    public bool AreOne(int first, int second)
    {
        lock (_gate)
        {
            return _watches.AreOne(first, second);
        }
    }

    /// <summary>Has the waiting request answered with ENOENT: the guest's kernel asks no more.</summary>
    public void End()
    {
        lock (_gate)
        {
            _isEnding = true;
        }
    }

    /// <summary>Watches nothing any more and forgets the waiting request, with its queue or session.</summary>
    /// <param name="dropRequest">The queue is gone; otherwise the request is answered with ENOENT.</param>
    public void Clear(bool dropRequest)
    {
        lock (_gate)
        {
            _watches.Clear();
            _watched = 0;
            _pending.Clear();
            _isEnding = !dropRequest;
            _isWaiting &= !dropRequest;
        }
    }

    /// <summary>Lets the request of a chain wait for events.</summary>
    /// <returns>0, or the negative errno to answer with.</returns>
    // Safe: the slice fills at most MaxSegments vectors, with buffers that the chain checked.
    public unsafe int Wait(ulong unique, DescriptorChain chain)
    {
        lock (_gate)
        {
            if (_isWaiting)
            {
                return -(int)Errno.EBUSY;
            }

            _segmentCount = chain.SliceWritable(0, HeaderLength + AnswerLength, new Span<Libc.iovec>(_segments, MaxSegments));
            ulong room = 0;
            for (int i = 0; i < _segmentCount; i++)
            {
                room += _segments[i].iov_len;
            }

            if (room < HeaderLength + AnswerLength)
            {
                return -(int)Errno.EINVAL;
            }

            (_unique, _head, _isWaiting, _isEnding) = (unique, chain.Head, true, false);
            return 0;
        }
    }

    /// <summary>Takes what the host has to tell.</summary>
    public void Collect() => Collect(default, hasNames: false);

    /// <summary>Takes what the host has to tell after a request of the guest, without what that did itself.</summary>
    // Safe: the kernel writes whole events, at most AnswerLength bytes; len covers an event's name.
    public unsafe void Collect(OwnChange own, bool hasNames)
    {
        lock (_gate)
        {
            _watches.RemoveStale();
            for (int i = 0; i < MostReads && _watches.Fd is not null; i++)
            {
                nint length = Libc.read(_watches.Fd.Value, _read, AnswerLength);
                if (length <= 0)
                {
                    return;
                }

                for (byte* at = _read; at < _read + length;)
                {
                    Libc.inotify_event* e = (Libc.inotify_event*)at;
                    at += sizeof(Libc.inotify_event) + e->len;
                    Take(e, own, hasNames);
                }
            }
        }
    }

    /// <summary>
    /// Answers the waiting request if there is something to tell, and the last answer was not just now. FIFOs that the guest waits for
    /// are told at once.
    /// </summary>
    /// <param name="fifos">The FIFOs that the guest has open.</param>
    /// <param name="head">Its chain's head, for the used ring.</param>
    /// <param name="written">The answer's length.</param>
    // Safe: the header is a local; _read holds AnswerLength bytes, and fifoLength is at most half of them.
    public unsafe bool TryFinish(HostFifos fifos, out ushort head, out uint written)
    {
        lock (_gate)
        {
            (head, written) = (_head, 0);
            if (!_isWaiting || !(_isEnding || fifos.HasDue || (!_pending.IsEmpty && !_isPausing)))
            {
                return false;
            }

            int fifoLength = _isEnding ? 0 : ListDue(fifos);
            ReadOnlySpan<byte> records = _isEnding || _isPausing ? [] : _pending.First(AnswerLength - fifoLength);
            fuse_out_header header = new()
            {
                len = (uint)(HeaderLength + fifoLength + records.Length),
                error = _isEnding ? -(int)Errno.ENOENT : 0,
                unique = _unique,
            };
            Write(0, new ReadOnlySpan<byte>(&header, HeaderLength));
            Write(HeaderLength, new ReadOnlySpan<byte>(_read, fifoLength));
            Write(HeaderLength + fifoLength, records);
            _isWaiting = false;
            written = header.len;
            if (!records.IsEmpty)
            {
                _pending.RemoveFirst(records.Length);
                _isPausing = true;
                Timer.Set(PauseMilliseconds);
            }

            return true;
        }
    }

    /// <summary>The pause after an answer is over.</summary>
    public void EndPause()
    {
        lock (_gate)
        {
            Timer.Drain();
            _isPausing = false;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _watches.Dispose();
        _pending.Dispose();
        Timer.Dispose();
        Free();
        GC.SuppressFinalize(this);
    }

    // Safe: Collect has the event in _read, its name behind it.
    private unsafe void Take(Libc.inotify_event* e, OwnChange own, bool hasNames)
    {
        if ((e->mask & Libc.IN_Q_OVERFLOW) != 0)
        {
            Lose();
            return;
        }

        ReadOnlySpan<byte> name = new(e + 1, (int)e->len);
        name = name.TrimEnd((byte)0);
        foreach (ulong node in _watches.NodesOf(e->wd))
        {
            if ((e->mask & _watches.MaskOf(node)) != 0 && !own.Is(e->mask, node, name, hasNames))
            {
                if (!_pending.TryAdd(new fuse_event { nodeid = node, mask = e->mask, cookie = e->cookie, namelen = (uint)name.Length }, name))
                {
                    Lose();
                }
            }
        }

        if ((e->mask & Libc.IN_IGNORED) != 0)
        {
            _watches.Forget(e->wd);
            _watched = _watches.Count;
        }
    }

    /// <summary>An event is lost: all who watch anything are told so, once for what is lost until they have been.</summary>
    private void Lose()
    {
        _lost++;
        if (_pending.TryBeginLoss())
        {
            foreach (ulong node in _watches.Nodes)
            {
                _pending.AddLoss(node);
            }
        }
    }

    /// <summary>Puts records of the FIFOs that are due into the buffer for inotify's, which is not in use now; their length.</summary>
    // Safe: MostFifos records fit into _read.
    private unsafe int ListDue(HostFifos fifos)
    {
        Span<ulong> keys = stackalloc ulong[MostFifos];
        int count = fifos.HasDue ? fifos.TakeDue(keys) : 0;
        for (int i = 0; i < count; i++)
        {
            ((fuse_event*)_read)[i] = new fuse_event { nodeid = keys[i], mask = FifoEvent };
        }

        return count * sizeof(fuse_event);
    }

    // Safe: the segments are filled, and each was checked to lie in RAM; what is written stays within it.
    private unsafe void Write(int offset, ReadOnlySpan<byte> bytes)
    {
        for (int i = 0; i < _segmentCount && !bytes.IsEmpty; i++)
        {
            int length = (int)_segments[i].iov_len;
            if (offset < length)
            {
                int count = Math.Min(length - offset, bytes.Length);
                bytes[..count].CopyTo(new Span<byte>((byte*)_segments[i].iov_base + offset, count));
                bytes = bytes[count..];
            }

            offset = Math.Max(offset - length, 0);
        }
    }

    // Safe: frees what the initialisers made; Dispose ends the finalizer.
    private unsafe void Free()
    {
        NativeMemory.Free(_read);
        NativeMemory.Free(_segments);
    }
}
