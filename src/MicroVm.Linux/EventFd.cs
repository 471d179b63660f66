using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>An eventfd(2) counter, non-blocking and close-on-exec; owns its descriptor.</summary>
public sealed class EventFd : IDisposable
{
    /// <summary>Creates a counter at zero.</summary>
    /// <exception cref="LinuxException">No descriptor is free.</exception>
    public EventFd() => Fd = SafeFd.From(Libc.eventfd(0, Libc.EFD_CLOEXEC | Libc.EFD_NONBLOCK), "eventfd");

    /// <summary>The descriptor, owned by this object.</summary>
    public SafeFd Fd { get; }

    /// <summary>Adds one, which wakes a waiter. A counter already at its maximum is awake, so that is no error.</summary>
    public unsafe void Signal()
    {
        ulong one = 1;
        while (Check.Retry(Libc.write(Fd.Value, &one, sizeof(ulong))))
        {
        }
    }

    /// <summary>Takes the count and sets it to zero; 0 when nothing was signalled.</summary>
    public unsafe ulong Drain()
    {
        ulong value = 0;
        nint n;
        do
        {
            n = Libc.read(Fd.Value, &value, sizeof(ulong));
        }
        while (Check.Retry(n));
        return n == sizeof(ulong) ? value : 0;
    }

    /// <inheritdoc/>
    public void Dispose() => Fd.Dispose();
}
