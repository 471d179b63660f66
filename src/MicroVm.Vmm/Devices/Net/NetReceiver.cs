using System.Runtime.InteropServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Net;

/// <summary>
/// Moves frames from the tap into a receive queue's buffers (virtio 1.2, 5.1.6.4): one readv(2) each, straight into guest
/// memory. Owned by one thread.
/// </summary>
internal sealed unsafe class NetReceiver : IDisposable
{
    private const int Budget = 64;
    private readonly Virtqueue _queue;
    private readonly SafeFd _tap;
    private readonly NetDevice _device;
    private readonly bool _mergeable;
    private readonly bool _segments;
    private readonly RateLimiter? _limiter;
    private readonly NetCounters _counters;
    private readonly ReceiveBuffers _window;

    // A frame that was read before there were buffers for all of it: its length, and where its rest begins.
    private ulong _held;
    private ulong _heldFrom;

    public NetReceiver(Virtqueue queue, SafeFd tap, NetDevice device, ulong features, RateLimiter? limiter, NetCounters counters)
    {
        _queue = queue;
        _tap = tap;
        _device = device;
        _mergeable = (features & NetFeature.MrgRxbuf) != 0;
        _segments = (features & (NetFeature.GuestOffloads & ~NetFeature.GuestCsum)) != 0;
        _limiter = limiter;
        _counters = counters;
        _window = new ReceiveBuffers(queue);
    }

    /// <summary>Milliseconds until the limit lets a frame pass, after <see cref="TurnEnd.Throttled"/>.</summary>
    public long ThrottleMilliseconds { get; private set; }

    /// <summary>Receives what the tap holds, up to a turn's share. The caller publishes the queue.</summary>
    public TurnEnd Turn()
    {
        long packets = 0, bytes = 0;
        TurnEnd end = TurnEnd.More;
        ReceiveFilter filter = _device.Filter;

        // Mergeable buffers are collected until the longest frame fits; else a frame has one chain, whatever its size.
        int chains = _mergeable ? int.MaxValue : 1;
        ulong longest = (ulong)(NetHeader.Size + (_segments ? Ethernet.MaxFrame : _device.MaxReceiveFrame));
        for (int i = 0; i < Budget; i++)
        {
            if (_limiter is not null && (ThrottleMilliseconds = _limiter.Delay()) > 0)
            {
                Interlocked.Increment(ref _counters.ReceiveThrottled);
                end = TurnEnd.Throttled;
                break;
            }

            ulong needed = _held > 0 ? _held : longest;
            if (!_window.Fill(needed, chains) || (_window.Capacity < _held && !_window.HoldsAll))
            {
                if (!_queue.IsBroken && _queue.EnableNotifications())
                {
                    continue;
                }

                end = TurnEnd.Blocked;
                break;
            }

            ulong length = _held;
            if (length > 0)
            {
                _held = 0;
                if (_window.Capacity < length)
                {
                    Interlocked.Increment(ref _counters.ReceiveOversized);
                    continue;
                }

                _window.CopySpill(_heldFrom, length);
            }
            else
            {
                nint n = Libc.readv(_tap.Value, _window.Vectors, _window.WithSpill());
                if (n <= 0)
                {
                    if (Check.Retry(n))
                    {
                        continue;
                    }

                    end = n < 0 && Check.LastErrno == Errno.EAGAIN ? TurnEnd.Idle : TurnEnd.Dead;
                    break;
                }

                length = (ulong)n;
                if (length < NetHeader.Size + Ethernet.HeaderLength || (length > _window.Capacity && !_mergeable))
                {
                    Interlocked.Increment(ref _counters.ReceiveOversized);
                    continue;
                }

                if (length > _window.Capacity)
                {
                    (_held, _heldFrom) = (length, _window.Capacity);
                    continue;
                }
            }

            if (Accept(filter, (int)length, out int count))
            {
                _window.Use(length, _mergeable);
                packets += count;
                bytes += (long)length - NetHeader.Size;
                _limiter?.Charge((long)length - NetHeader.Size, count);
            }
        }

        if (packets > 0)
        {
            Interlocked.Add(ref _counters.ReceivePackets, packets);
            Interlocked.Add(ref _counters.ReceiveBytes, bytes);
        }

        return end;
    }

    /// <inheritdoc/>
    public void Dispose() => _window.Dispose();

    private bool Accept(ReceiveFilter filter, int length, out int packets)
    {
        Span<byte> head = stackalloc byte[NetHeader.Size + ReceiveFilter.HeadLength];
        head = head[..Math.Min(head.Length, length)];
        _window.Copy(0, head);
        NetHeader header = MemoryMarshal.Read<NetHeader>(head);
        packets = header.GsoType == NetGso.None || header.GsoSize == 0 ? 1
            : Math.Max(1, (length - NetHeader.Size - header.HeaderLength + header.GsoSize - 1) / header.GsoSize);
        if (filter.Accepts(head[NetHeader.Size..]))
        {
            return true;
        }

        Interlocked.Increment(ref _counters.ReceiveFiltered);
        return false;
    }
}
