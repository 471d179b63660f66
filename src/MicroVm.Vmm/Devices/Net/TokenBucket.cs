using System.Diagnostics;

namespace MicroVm.Vmm.Devices.Net;

/// <summary>
/// A token bucket that may be overdrawn: what is under way passes while any token is left, and the debt is paid before the
/// next. So the rate is exact whatever the frames' sizes.
/// </summary>
internal struct TokenBucket
{
    private readonly double _perTick;
    private readonly double _burst;
    private double _tokens;
    private long _last;

    /// <summary>Makes a full bucket.</summary>
    /// <param name="perSecond">Tokens a second, more than 0.</param>
    /// <param name="burst">Most tokens that are saved up; 0 for a tenth of a second's.</param>
    /// <param name="now">The time in ticks of <see cref="Stopwatch"/>.</param>
    public TokenBucket(long perSecond, long burst, long now)
    {
        _perTick = (double)perSecond / Stopwatch.Frequency;
        _burst = burst > 0 ? burst : Math.Max(1, perSecond / 10.0);
        _tokens = _burst;
        _last = now;
    }

    /// <summary>Ticks until something may pass; 0 when it may now.</summary>
    public long Delay(long now)
    {
        _tokens = Math.Min(_burst, _tokens + ((now - _last) * _perTick));
        _last = now;
        return _tokens > 0 ? 0 : (long)(-_tokens / _perTick) + 1;
    }

    /// <summary>Takes tokens for what passed.</summary>
    public void Charge(long tokens) => _tokens -= tokens;
}
