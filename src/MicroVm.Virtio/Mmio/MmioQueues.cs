using MicroVm.Linux;
using MicroVm.Memory;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Virtio.Mmio;

/// <summary>The queues of a device: their registers, the virtqueues that are made of them, and the host's signals for kicks. Guarded by the transport's lock.</summary>
internal sealed class MmioQueues : IDisposable
{
    private readonly MmioQueue[] _queues;
    private readonly IEventRouting _routing;
    private readonly ulong _notify;
    private Virtqueue?[] _virtqueues = [];

    /// <summary>Makes the registers.</summary>
    /// <param name="maxSizes">Largest size of each queue.</param>
    /// <param name="routing">Signals kicks, borrowed.</param>
    /// <param name="notify">GPA of QueueNotify.</param>
    public MmioQueues(ReadOnlySpan<ushort> maxSizes, IEventRouting routing, ulong notify)
    {
        _routing = routing;
        _notify = notify;
        _queues = new MmioQueue[maxSizes.Length];
        for (int i = 0; i < maxSizes.Length; i++)
        {
            _queues[i] = new MmioQueue(maxSizes[i]);
        }
    }

    /// <summary>QueueSel.</summary>
    public uint Selection { get; set; }

    /// <summary>The queue that QueueSel names, when there is one.</summary>
    public MmioQueue? Selected => Selection < (uint)_queues.Length ? _queues[Selection] : null;

    /// <summary>The first queue in use that is broken or has requests under way; null when all are at rest.</summary>
    public int? Busy
    {
        get
        {
            for (int i = 0; i < _virtqueues.Length; i++)
            {
                if (_virtqueues[i] is { } queue && (queue.IsBroken || queue.Position.NextAvailable != queue.Position.NextUsed))
                {
                    return i;
                }
            }

            return null;
        }
    }

    /// <summary>Signals the kick of a queue that is ready.</summary>
    /// <returns>False when there is no such queue.</returns>
    public bool TryKick(uint index)
    {
        if (index < (uint)_queues.Length && _queues[index] is { Ready: true, Kick: { } kick })
        {
            kick.Signal();
            return true;
        }

        return false;
    }

    /// <summary>Signals the kick of every queue that is ready.</summary>
    public void KickAll()
    {
        for (uint i = 0; i < _queues.Length; i++)
        {
            _ = TryKick(i);
        }
    }

    /// <summary>Makes the virtqueues of the queues that are ready.</summary>
    /// <param name="memory">Guest RAM.</param>
    /// <param name="features">What the driver accepts.</param>
    /// <param name="windows">Buffers may lie in a window of guest memory.</param>
    /// <param name="queues">By number; null where the driver left one out.</param>
    /// <returns>Why it cannot be done; null when it was.</returns>
    public string? TryMake(GuestMemory memory, DriverFeatures features, bool windows, out Virtqueue?[] queues)
    {
        bool eventIndex = features.Has(VirtioFeature.RingEventIdx);
        bool indirect = features.Has(VirtioFeature.RingIndirectDesc);
        queues = new Virtqueue?[_queues.Length];
        for (int i = 0; i < queues.Length; i++)
        {
            MmioQueue queue = _queues[i];
            if (!queue.Ready)
            {
                continue;
            }

            queue.Kick ??= new EventFd();
            queues[i] = Virtqueue.TryCreate(memory, queue.Layout, queue.MaxSize, i, eventIndex, indirect, queue.Kick, out string? reason);
            if (reason is not null)
            {
                return $"queue {i}: {reason}";
            }

            queues[i]!.TakesWindowBuffers = windows;
        }

        return null;
    }

    /// <summary>Takes the virtqueues into use.</summary>
    /// <param name="queues">As <see cref="TryMake"/> made them.</param>
    /// <param name="positions">Where they stand; null for their start.</param>
    /// <exception cref="LinuxException">The host refused a signal; <see cref="RemoveSignals"/> undoes those that were made.</exception>
    public void Use(Virtqueue?[] queues, ushort[]? positions)
    {
        for (int i = 0; i < queues.Length; i++)
        {
            if (queues[i] is not null)
            {
                _routing.AddIoEvent(_notify, (uint)i, _queues[i].Kick!);
                _queues[i].HasIoEvent = true;
            }
        }

        _virtqueues = queues;
        for (int i = 0; i < queues.Length; i++)
        {
            if (positions is not null && queues[i] is { } queue)
            {
                queue.Position = (positions[i], positions[i]);
            }
        }
    }

    /// <summary>Ends the host's signals for kicks.</summary>
    public void RemoveSignals()
    {
        for (int i = 0; i < _queues.Length; i++)
        {
            if (_queues[i].HasIoEvent)
            {
                _queues[i].HasIoEvent = false;
                _routing.RemoveIoEvent(_notify, (uint)i, _queues[i].Kick!);
            }
        }
    }

    /// <summary>Back to the state after a device reset.</summary>
    public void Reset()
    {
        _virtqueues = [];
        foreach (MmioQueue queue in _queues)
        {
            queue.Clear();
        }

        Selection = 0;
    }

    /// <summary>Writes the registers and where the queues stand.</summary>
    public void Save(StateWriter writer)
    {
        writer.Write(_queues.Length);
        for (int i = 0; i < _queues.Length; i++)
        {
            _queues[i].Save(writer);
            writer.Write(i < _virtqueues.Length && _virtqueues[i] is { } queue ? queue.Position.NextUsed : (ushort)0);
        }
    }

    /// <summary>Reads the registers.</summary>
    /// <param name="reader">Stands on them.</param>
    /// <param name="device">The device's name, for the error.</param>
    /// <returns>Where each queue stands.</returns>
    /// <exception cref="SnapshotException">They are malformed, or of another number of queues.</exception>
    public ushort[] Restore(StateReader reader, string device)
    {
        int count = reader.ReadCount(_queues.Length, "queues");
        if (count != _queues.Length)
        {
            throw reader.Malformed($"{count} queues, {device} has {_queues.Length}");
        }

        ushort[] positions = new ushort[count];
        for (int i = 0; i < count; i++)
        {
            _queues[i].Restore(reader);
            positions[i] = reader.Read<ushort>();
        }

        return positions;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (MmioQueue queue in _queues)
        {
            queue.Dispose();
        }
    }
}
