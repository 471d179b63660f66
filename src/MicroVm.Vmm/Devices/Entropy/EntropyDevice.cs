using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Counters;
using MicroVm.Vmm.Virtio;

namespace MicroVm.Vmm.Devices.Entropy;

/// <summary>virtio-rng (virtio 1.2, 5.4), fed by getrandom(2) straight into the guest's buffers.</summary>
public sealed unsafe class EntropyDevice : VirtioDevice, ICounterSource, IEventHandler, IDeferredWork
{
    /// <summary>Most bytes written for one request, however large its buffer: a guest cannot keep the device thread busy.</summary>
    public const int MaxBytesPerRequest = 4096;

    private const int TurnBudget = 16;
    private VirtioActivation? _activation;
    private Virtqueue? _queue;
    private DescriptorChain? _chain;
    private bool _turnQueued;
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
    /// <exception cref="InvalidOperationException">The driver did not set up the queue.</exception>
    public override void Activate(VirtioActivation activation)
    {
        ArgumentNullException.ThrowIfNull(activation);
        Virtqueue queue = activation.Queues[0]
            ?? throw new InvalidOperationException("the driver left the request queue disabled (5.4.2)");
        activation.Loop.Add(queue.Kick.Fd, Libc.EPOLLIN, this);
        _activation = activation;
        _queue = queue;
        _chain = new DescriptorChain(queue.Size);
        ScheduleTurn();
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        if (_activation is { } activation)
        {
            activation.Loop.Remove(_queue!.Kick.Fd);
            _chain!.Dispose();
            _activation = null;
            _queue = null;
        }
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

    void IEventHandler.OnReady(SafeFd fd, uint events)
    {
        _ = _queue?.Kick.Drain();
        ScheduleTurn();
    }

    void IDeferredWork.RunDeferred()
    {
        _turnQueued = false;
        if (_activation is not { } activation || _queue is not { } queue || _chain is not { } chain)
        {
            return;
        }

        queue.DisableNotifications();
        int taken = 0;
        while (taken < TurnBudget && queue.TryPop(chain))
        {
            queue.PushUsed(chain.Head, Fill(chain));
            taken++;
        }

        if (queue.Publish())
        {
            activation.Interrupt.SignalUsed();
        }

        if (!queue.ReportIfBroken(activation.Interrupt) && (taken == TurnBudget || queue.EnableNotifications()))
        {
            ScheduleTurn();
        }
    }

    private uint Fill(DescriptorChain chain)
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

    private void ScheduleTurn()
    {
        if (!_turnQueued && _activation is { } activation)
        {
            _turnQueued = true;
            activation.Loop.Defer(this);
        }
    }
}
