using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>A one-shot timer on the monotonic clock that an <see cref="EventLoop"/> can watch; owns its descriptor.</summary>
public sealed unsafe class TimerFd : IDisposable
{
    /// <summary>Creates a timer that is not running.</summary>
    /// <exception cref="LinuxException">No descriptor is free.</exception>
    public TimerFd() =>
        Fd = SafeFd.From(Libc.timerfd_create(Libc.CLOCK_MONOTONIC, Libc.TFD_CLOEXEC | Libc.TFD_NONBLOCK), "timerfd_create");

    /// <summary>The descriptor, readable when the timer has expired; owned by this object.</summary>
    public SafeFd Fd { get; }

    /// <summary>Starts it afresh, to expire after <paramref name="milliseconds"/> (at least 1); 0 stops it.</summary>
    public void Set(long milliseconds)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(milliseconds);
        Libc.itimerspec spec = default;
        spec.it_value.tv_sec = milliseconds / 1000;
        spec.it_value.tv_nsec = milliseconds % 1000 * 1_000_000;
        Check.Result(Libc.timerfd_settime(Fd.Value, 0, &spec, null), "timerfd_settime");
    }

    /// <summary>Takes the expiry, so that the descriptor is no longer readable.</summary>
    public void Drain()
    {
        ulong count;
        while (Check.Retry(Libc.read(Fd.Value, &count, sizeof(ulong))))
        {
        }
    }

    /// <inheritdoc/>
    public void Dispose() => Fd.Dispose();
}
