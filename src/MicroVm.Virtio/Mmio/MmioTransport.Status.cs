using MicroVm.Linux;

namespace MicroVm.Virtio.Mmio;

/// <content>The device status state machine (virtio 1.2, 2.1 and 3.1.1). Everything here runs under the lock.</content>
public sealed partial class MmioTransport
{
    private void WriteStatus(VirtioStatus value)
    {
        if (value == VirtioStatus.None)
        {
            ResetDevice();
            return;
        }

        VirtioStatus current = Status;
        VirtioStatus mine = current & ~VirtioStatus.NeedsReset;
        VirtioStatus wanted = value & ~VirtioStatus.NeedsReset;

        // 2.1.1: the driver must not clear a bit; after FAILED it must reset before it starts again.
        if ((mine & ~wanted) != 0 || (current & VirtioStatus.Failed) != 0)
        {
            Violation();
            return;
        }

        VirtioStatus added = wanted & ~mine;
        if ((added & VirtioStatus.Failed) != 0)
        {
            SetStatus(VirtioStatus.Failed);
            return;
        }

        if (!InOrder(wanted))
        {
            Violation();
            return;
        }

        SetStatus(added & (VirtioStatus.Acknowledge | VirtioStatus.Driver));
        if ((added & VirtioStatus.FeaturesOk) != 0)
        {
            // 3.1.1, step 6: the driver reads the status again to see whether the bit stuck.
            if ((_driverFeatures & ~Offered) != 0 || (_driverFeatures & VirtioFeature.Version1) == 0)
            {
                return;
            }

            SetStatus(VirtioStatus.FeaturesOk);
        }

        if ((added & VirtioStatus.DriverOk) != 0)
        {
            SetStatus(VirtioStatus.DriverOk);
            if ((current & VirtioStatus.NeedsReset) == 0)
            {
                Activate();
            }
        }
    }

    private static bool InOrder(VirtioStatus status)
    {
        bool Has(VirtioStatus bit) => (status & bit) != 0;
        return (!Has(VirtioStatus.Driver) || Has(VirtioStatus.Acknowledge))
            && (!Has(VirtioStatus.FeaturesOk) || Has(VirtioStatus.Driver))
            && (!Has(VirtioStatus.DriverOk) || Has(VirtioStatus.FeaturesOk));
    }

    private void SetStatus(VirtioStatus bits) => Interlocked.Or(ref _status, (int)bits);

    /// <summary>Makes the queues and has the device serve them.</summary>
    /// <param name="positions">Where the queues stand; null for their start.</param>
    private void Activate(ushort[]? positions = null)
    {
        try
        {
            if (TryMakeQueues(out Virtqueue?[] queues) is { } reason)
            {
                FailActivation(reason);
                return;
            }

            _virtqueues = queues;
            for (int i = 0; i < queues.Length; i++)
            {
                if (positions is not null && queues[i] is { } queue)
                {
                    queue.Position = (positions[i], positions[i]);
                }
            }

            _loop.Invoke(() => Device.Activate(new VirtioActivation(_memory, queues, _driverFeatures, this, _loop)));
            _active = true;
        }
        catch (Exception e) when (e is IOException or InvalidOperationException or ArgumentException)
        {
            RemoveIoEvents();
            FailActivation(e.Message);
            return;
        }

        if (_interruptStatus.IsPending)
        {
            // Set before there was a line to raise, and the driver takes the bits only when it is raised.
            _interrupt?.Signal();
        }

        // Some drivers fill and kick their queues before DRIVER_OK; nobody was listening then.
        foreach (MmioQueue queue in _queues)
        {
            if (queue is { Ready: true, Kick: { } kick })
            {
                kick.Signal();
            }
        }
    }

    private void FailActivation(string reason)
    {
        _activationProblem = reason;
        SignalNeedsReset(reason);
    }

    private string? TryMakeQueues(out Virtqueue?[] queues)
    {
        bool eventIndex = (_driverFeatures & VirtioFeature.RingEventIdx) != 0;
        bool indirect = (_driverFeatures & VirtioFeature.RingIndirectDesc) != 0;
        queues = new Virtqueue?[_queues.Length];
        for (int i = 0; i < queues.Length; i++)
        {
            MmioQueue queue = _queues[i];
            if (!queue.Ready)
            {
                continue;
            }

            queue.Kick ??= new EventFd();
            queues[i] = Virtqueue.TryCreate(
                _memory, queue.Layout, queue.MaxSize, i, eventIndex, indirect, queue.Kick, out string? reason);
            if (reason is not null)
            {
                return $"queue {i}: {reason}";
            }

            queues[i]!.TakesWindowBuffers = Device.TakesWindowBuffers;
        }

        if (_interrupt is null)
        {
            EventFd interrupt = new();
            try
            {
                _routing.AddInterrupt(Gsi, interrupt);
            }
            catch
            {
                interrupt.Dispose();
                throw;
            }

            _interrupt = interrupt;
        }

        for (int i = 0; i < queues.Length; i++)
        {
            if (queues[i] is not null)
            {
                _routing.AddIoEvent(BaseAddress + MmioRegister.QueueNotify, (uint)i, _queues[i].Kick!);
                _queues[i].HasIoEvent = true;
            }
        }

        return null;
    }

    private void RemoveIoEvents()
    {
        for (int i = 0; i < _queues.Length; i++)
        {
            if (_queues[i].HasIoEvent)
            {
                _queues[i].HasIoEvent = false;
                _routing.RemoveIoEvent(BaseAddress + MmioRegister.QueueNotify, (uint)i, _queues[i].Kick!);
            }
        }
    }

    private void ResetDevice()
    {
        if (_active)
        {
            _active = false;
            RemoveIoEvents();
            try
            {
                // The vCPU waits for requests that are under way, so that the event loop need not.
                _ = Device.TryPark(Timeout.Infinite);
                _loop.Invoke(Device.Reset);
            }
            catch (Exception e) when (e is IOException or InvalidOperationException or ArgumentException)
            {
                _faults.Add($"reset: {e.Message}");
            }
        }

        _virtqueues = [];
        foreach (MmioQueue queue in _queues)
        {
            queue.Clear();
        }

        _driverFeatures = 0;
        _deviceFeaturesSel = 0;
        _driverFeaturesSel = 0;
        _queueSel = 0;
        _shmSel = 0;
        _statusWordLow = 0;
        _interruptStatus.Reset();
        Interlocked.Exchange(ref _status, 0);
    }
}
