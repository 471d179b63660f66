using MicroVm.Bus.Counters;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Entropy;

/// <summary>virtio-rng (virtio 1.2, 5.4), fed by getrandom(2) straight into the guest's buffers.</summary>
public sealed unsafe class EntropyDevice : VirtioDevice, ICounterSource, IRequestHandler
{
    /// <summary>Most bytes written for one request, however large its buffer: a guest cannot keep the device thread busy.</summary>
    public const int MaxBytesPerRequest = 4096;

    private RequestQueue? _queue;
    private long _requests;
    private long _bytes;
    private long _errors;

    /// <inheritdoc/>
    public override uint DeviceId => 4;

    /// <inheritdoc/>
    public override string Name => "rng";

    /// <inheritdoc/>
    public override ulong DeviceFeatures => 0;

    /// <inheritdoc/>
    public override ReadOnlySpan<ushort> QueueMaxSizes => [16];

    /// <inheritdoc/>
    public override string? WhyNotSaved => null;

    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">The driver did not set up the queue.</exception>
    public override void Activate(VirtioActivation activation)
    {
        ArgumentNullException.ThrowIfNull(activation);
        _queue = new RequestQueue(activation.Require(0), activation.Interrupt, activation.Loop, this);
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        _queue?.Dispose();
        _queue = null;
    }

    /// <inheritdoc/>
    public void CollectCounters(Action<string, long> add)
    {
        ArgumentNullException.ThrowIfNull(add);
        add(Name + ".requests", Volatile.Read(ref _requests));
        add(Name + ".bytes", Volatile.Read(ref _bytes));
        add(Name + ".errors", Volatile.Read(ref _errors));
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        Reset();
        base.Dispose();
    }

    uint IRequestHandler.Serve(Virtqueue queue, DescriptorChain chain)
    {
        // The segments were checked to lie in guest RAM; the bytes written there are nobody's secret.
        uint done = 0;
        for (int i = 0; i < chain.WritableCount && done < MaxBytesPerRequest; i++)
        {
            Libc.iovec segment = chain.Writable[i];
            uint wanted = (uint)Math.Min(segment.iov_len, MaxBytesPerRequest - done);
            uint n = GetRandom(segment.iov_base, wanted);
            done += n;
            if (n != wanted)
            {
                _errors++;
                break;
            }
        }

        _requests++;
        _bytes += done;
        return done;
    }

    private static uint GetRandom(byte* destination, uint length)
    {
        uint done = 0;
        while (done < length)
        {
            nint n = Libc.getrandom(destination + done, length - done, Libc.GRND_NONBLOCK);
            if (n > 0)
            {
                done += (uint)n;
            }
            else if (!Check.Retry(n))
            {
                break;
            }
        }

        return done;
    }
}
