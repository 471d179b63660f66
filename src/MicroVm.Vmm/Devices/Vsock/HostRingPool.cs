using MicroVm.Linux;

namespace MicroVm.Vmm.Devices.Vsock;

/// <summary>Empty rings kept for reuse; a few, so that an idle device holds little.</summary>
internal sealed class HostRingPool : IDisposable
{
    private const int MaxKept = 4;
    private readonly Stack<HostRing> _kept = new(MaxKept);

    /// <summary>A ring of exactly <paramref name="capacity"/> bytes, or null when the host has no memory.</summary>
    public HostRing? TryRent(int capacity)
    {
        if (capacity == VsockLimits.Buffer && _kept.TryPop(out HostRing? ring))
        {
            return ring;
        }

        try
        {
            return new HostRing(capacity);
        }
        catch (LinuxException)
        {
            return null;
        }
    }

    /// <summary>Takes a ring back.</summary>
    public void Return(HostRing ring)
    {
        ring.Clear();
        if (ring.Capacity == VsockLimits.Buffer && _kept.Count < MaxKept)
        {
            _kept.Push(ring);
        }
        else
        {
            ring.Dispose();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        while (_kept.TryPop(out HostRing? ring))
        {
            ring.Dispose();
        }
    }
}
