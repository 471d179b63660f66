using System.Runtime.InteropServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Net;

/// <summary>How a turn of work on a queue ended.</summary>
internal enum TurnEnd
{
    /// <summary>Nothing is left to do until the next event.</summary>
    Idle,

    /// <summary>The turn's share is used up.</summary>
    More,

    /// <summary>The other side has no room (or, for reception, the guest no buffers).</summary>
    Blocked,

    /// <summary>The rate limit.</summary>
    Throttled,

    /// <summary>The tap is gone.</summary>
    Dead,
}

/// <summary>
/// Moves frames from a transmit queue to the tap (virtio 1.2, 5.1.6.2): one writev(2) each, from guest memory except for the
/// headers, which are sent from the copies that were checked. Owned by one thread.
/// </summary>
internal sealed unsafe class NetTransmitter : IDisposable
{
    private const int Budget = 64;
    private readonly Virtqueue _queue;
    private readonly SafeFd _tap;
    private readonly NetDevice _device;
    private readonly RateLimiter? _limiter;
    private readonly NetCounters _counters;
    private readonly DescriptorChain _chain;
    private readonly byte* _head;
    private readonly Libc.iovec* _vectors;

    public NetTransmitter(Virtqueue queue, SafeFd tap, NetDevice device, RateLimiter? limiter, NetCounters counters)
    {
        _queue = queue;
        _tap = tap;
        _device = device;
        _limiter = limiter;
        _counters = counters;
        _chain = new DescriptorChain(Math.Max(queue.Size, NetLimits.MaxSegments));
        _head = (byte*)NativeMemory.Alloc(NetHeader.Size + FrameCheck.MaxHead);
        _vectors = (Libc.iovec*)NativeMemory.Alloc((nuint)_chain.Capacity + 1, (nuint)sizeof(Libc.iovec));
    }

    /// <summary>Milliseconds until the limit lets a frame pass, after <see cref="TurnEnd.Throttled"/>.</summary>
    public long ThrottleMilliseconds { get; private set; }

    /// <summary>Sends what waits, up to a turn's share. The caller publishes the queue.</summary>
    public TurnEnd Turn()
    {
        long packets = 0, bytes = 0;
        TurnEnd end = TurnEnd.More;
        FrameRules rules = _device.Rules;
        _queue.DisableNotifications();
        for (int i = 0; i < Budget; i++)
        {
            if (_limiter is not null && (ThrottleMilliseconds = _limiter.Delay()) > 0)
            {
                if (_queue.Pending() > 0)
                {
                    Interlocked.Increment(ref _counters.TransmitThrottled);
                    end = TurnEnd.Throttled;
                    break;
                }
            }

            if (!_queue.TryPop(_chain))
            {
                if (i > 0 && !_queue.IsBroken)
                {
                    // Kicks stay off until a turn finds nothing: a driver that has just sent is likely to send again, and each kick
                    // is an exit from its VM.
                    break;
                }

                if (_queue.IsBroken || !_queue.EnableNotifications())
                {
                    end = TurnEnd.Idle;
                    break;
                }

                continue;
            }

            int length = Send(rules, out int segments, out TurnEnd problem);
            if (problem == TurnEnd.Blocked || problem == TurnEnd.Dead)
            {
                _queue.UndoPop();
                end = problem;
                break;
            }

            _queue.PushUsed(_chain.Head, 0);
            if (length > 0)
            {
                packets += segments;
                bytes += length;
                _limiter?.Charge(length, segments);
            }
        }

        if (packets > 0)
        {
            Interlocked.Add(ref _counters.TransmitPackets, packets);
            Interlocked.Add(ref _counters.TransmitBytes, bytes);
        }

        return end;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _chain.Dispose();
        NativeMemory.Free(_head);
        NativeMemory.Free(_vectors);
    }

    /// <summary>Sends the popped frame.</summary>
    /// <returns>Its length; 0 when it was dropped.</returns>
    private int Send(FrameRules rules, out int packets, out TurnEnd problem)
    {
        problem = TurnEnd.Idle;
        packets = 0;

        // 5.1.6.2: header and frame are readable; a writable part would be a receive buffer in the wrong queue.
        if (_chain.WritableCount != 0 || _chain.ReadableLength < NetHeader.Size + Ethernet.HeaderLength
            || _chain.ReadableLength > NetHeader.Size + Ethernet.MaxFrame)
        {
            Interlocked.Increment(ref _counters.TransmitBadSize);
            return 0;
        }

        ulong frame = _chain.ReadableLength - NetHeader.Size;
        ref NetHeader header = ref *(NetHeader*)_head;
        _ = _chain.CopyFromReadable(0, new Span<byte>(_head, NetHeader.Size));
        int headLength = FrameCheck.HeadLength(header, frame);
        Span<byte> head = new(_head + NetHeader.Size, headLength);
        _ = _chain.CopyFromReadable(NetHeader.Size, head);
        FrameVerdict verdict = FrameCheck.Check(ref header, head, frame, rules, out packets);
        if (verdict != FrameVerdict.Good)
        {
            ref long counter = ref verdict == FrameVerdict.SpoofedSource ? ref _counters.TransmitSpoofed
                : ref verdict == FrameVerdict.BadSize ? ref _counters.TransmitBadSize
                : ref _counters.TransmitBadHeader;
            Interlocked.Increment(ref counter);
            return 0;
        }

        int copied = NetHeader.Size + headLength;
        _vectors[0] = new Libc.iovec { iov_base = _head, iov_len = (nuint)copied };
        int count = 1 + _chain.SliceReadable((ulong)copied, frame - (ulong)headLength, new Span<Libc.iovec>(_vectors + 1, _chain.Capacity));
        nint n;
        do
        {
            n = Libc.writev(_tap.Value, _vectors, count);
        }
        while (Check.Retry(n));
        if (n == NetHeader.Size + (nint)frame)
        {
            return (int)frame;
        }

        Errno errno = n < 0 ? Check.LastErrno : Errno.OK;
        problem = errno == Errno.EAGAIN ? TurnEnd.Blocked : errno == Errno.EBADFD ? TurnEnd.Dead : TurnEnd.Idle;
        if (problem == TurnEnd.Idle)
        {
            // EIO while the interface is down, EINVAL from a kernel that is stricter than the check, ENOMEM: lost, as on a wire.
            Interlocked.Increment(ref _counters.TransmitErrors);
        }

        return 0;
    }
}

/// <summary>Sizes of the queues and what they carry.</summary>
internal static class NetLimits
{
    /// <summary>Descriptors of a receive or transmit queue.</summary>
    public const ushort QueueSize = 256;

    /// <summary>Descriptors of the control queue.</summary>
    public const ushort ControlQueueSize = 64;

    /// <summary>Most queue pairs.</summary>
    public const int MaxPairs = 8;

    /// <summary>Most segments of a chain: of a small queue, too, indirect chains may be longer than it.</summary>
    public const int MaxSegments = 64;
}
