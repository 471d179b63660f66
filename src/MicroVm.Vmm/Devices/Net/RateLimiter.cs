using System.Diagnostics;

namespace MicroVm.Vmm.Devices.Net;

/// <summary>The rate limit of one direction, in bytes and in packets; shared by the device's queue pairs.</summary>
internal sealed class RateLimiter
{
    private readonly Lock _lock = new();
    private readonly bool _limitsBytes;
    private readonly bool _limitsPackets;
    private TokenBucket _bytes;
    private TokenBucket _packets;

    private RateLimiter(NetRateLimit limit)
    {
        long now = Stopwatch.GetTimestamp();
        _limitsBytes = limit.BytesPerSecond > 0;
        _limitsPackets = limit.PacketsPerSecond > 0;
        _bytes = _limitsBytes ? new TokenBucket(limit.BytesPerSecond, limit.BurstBytes, now) : default;
        _packets = _limitsPackets ? new TokenBucket(limit.PacketsPerSecond, limit.BurstPackets, now) : default;
    }

    /// <summary>Makes a limiter; null where nothing is limited.</summary>
    public static RateLimiter? Create(NetRateLimit limit) =>
        limit.BytesPerSecond > 0 || limit.PacketsPerSecond > 0 ? new RateLimiter(limit) : null;

    /// <summary>Milliseconds until the next packet may pass; 0 when it may now.</summary>
    public long Delay()
    {
        long now = Stopwatch.GetTimestamp();
        lock (_lock)
        {
            long ticks = Math.Max(_limitsBytes ? _bytes.Delay(now) : 0, _limitsPackets ? _packets.Delay(now) : 0);
            return (long)Math.Ceiling(ticks * 1000.0 / Stopwatch.Frequency);
        }
    }

    /// <summary>Accounts for what passed.</summary>
    public void Charge(long bytes, long packets)
    {
        lock (_lock)
        {
            _bytes.Charge(bytes);
            _packets.Charge(packets);
        }
    }
}

/// <summary>A rate limit; 0 is no limit, and for a burst the default: a tenth of a second's.</summary>
/// <param name="BytesPerSecond">Bytes of frames, Ethernet headers included.</param>
/// <param name="BurstBytes">Most bytes at once.</param>
/// <param name="PacketsPerSecond">Packets as they are on a wire: segments count, not what carries them together.</param>
/// <param name="BurstPackets">Most packets at once.</param>
internal readonly record struct NetRateLimit(long BytesPerSecond, long BurstBytes, long PacketsPerSecond, long BurstPackets);
