using MicroVm.Linux;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Virtio.Mmio;

/// <content>Saving and restoring: what the driver wrote, where the queues stand, and then the device's own state.</content>
public sealed partial class MmioTransport
{
    /// <summary>Version of the transport's part of a device's section.</summary>
    public const uint StateVersion = 1;

    /// <summary>Why the device cannot be saved as it is now: a sentence; null when it can. vCPUs and the device's threads stand still.</summary>
    public string? WhyNotSaved()
    {
        if ((Status & (VirtioStatus.NeedsReset | VirtioStatus.Failed)) != 0)
        {
            return $"{Device.Name} has failed and waits for its driver to reset it";
        }

        for (int i = 0; i < _virtqueues.Length; i++)
        {
            if (_virtqueues[i] is { } queue && (queue.IsBroken || queue.Position.NextAvailable != queue.Position.NextUsed))
            {
                return $"{Device.Name} has requests under way in queue {i}";
            }
        }

        return Device.WhyNotSaved;
    }

    /// <summary>Writes the state. vCPUs and the device's threads stand still, and <see cref="WhyNotSaved"/> had nothing to say.</summary>
    public void Save(StateWriter writer)
    {
        ArgumentNullException.ThrowIfNull(writer);
        lock (_lock)
        {
            writer.Write(Device.DeviceId);
            writer.Write(_status);
            writer.Write(_interruptStatus.Value);
            writer.Write(_interruptStatus.Gpa);
            writer.Write(_statusWordLow);
            writer.Write(_configGeneration);
            writer.Write(_driverFeatures);
            writer.Write(_deviceFeaturesSel);
            writer.Write(_driverFeaturesSel);
            writer.Write(_queueSel);
            writer.Write(_shmSel);
            writer.WriteFlag(_active);
            writer.Write(_queues.Length);
            for (int i = 0; i < _queues.Length; i++)
            {
                _queues[i].Save(writer);
                writer.Write(i < _virtqueues.Length && _virtqueues[i] is { } queue ? queue.Position.NextUsed : (ushort)0);
            }

            Device.SaveState(writer);
        }
    }

    /// <summary>Gives a window that nobody has used yet a saved state, and has the device serve its queues. Before the vCPUs run.</summary>
    /// <exception cref="SnapshotException">The state is malformed, or not one that this device can have.</exception>
    public void Restore(StateReader reader)
    {
        ArgumentNullException.ThrowIfNull(reader);
        lock (_lock)
        {
            // A window that was free may have its device by now; the driver finds it when it looks again.
            uint id = reader.Read<uint>();
            if (id != Device.DeviceId && id != 0)
            {
                throw new SnapshotException($"{Device.Name}: the snapshot has a device of type {id} in this window, the configuration one of type {Device.DeviceId}");
            }

            _status = reader.Read<int>();
            int interrupts = reader.Read<int>();
            ulong statusWord = reader.Read<ulong>();
            _statusWordLow = reader.Read<uint>();
            if (!_interruptStatus.TryRestore(_memory, interrupts, statusWord))
            {
                throw reader.Malformed($"there is no guest memory for the status word at {statusWord:x}");
            }

            _configGeneration = reader.Read<int>();
            _driverFeatures = reader.Read<ulong>();
            _deviceFeaturesSel = reader.Read<uint>();
            _driverFeaturesSel = reader.Read<uint>();
            _queueSel = reader.Read<uint>();
            _shmSel = reader.Read<uint>();
            bool active = reader.ReadFlag();
            CheckStatus(reader, active);
            int count = reader.ReadCount(_queues.Length, "queues");
            if (count != _queues.Length)
            {
                throw reader.Malformed($"{count} queues, {Device.Name} has {_queues.Length}");
            }

            ushort[] positions = new ushort[count];
            for (int i = 0; i < count; i++)
            {
                _queues[i].Restore(reader);
                positions[i] = reader.Read<ushort>();
            }

            Device.RestoreState(reader);
            reader.End();
            if (active)
            {
                Reactivate(positions);
            }
        }
    }

    private void CheckStatus(StateReader reader, bool active)
    {
        const VirtioStatus Possible = VirtioStatus.Acknowledge | VirtioStatus.Driver | VirtioStatus.FeaturesOk | VirtioStatus.DriverOk;
        if ((Status & ~Possible) != 0 || !InOrder(Status) || active != ((Status & VirtioStatus.DriverOk) != 0))
        {
            throw reader.Malformed($"the status of {Device.Name} is {_status:x}");
        }

        if ((Status & VirtioStatus.FeaturesOk) != 0 && ((_driverFeatures & ~Offered) != 0 || (_driverFeatures & VirtioFeature.Version1) == 0))
        {
            throw new SnapshotException($"{Device.Name}: the driver uses features {_driverFeatures:x}, the device has {Offered:x}");
        }
    }

    private void Reactivate(ushort[] positions)
    {
        Activate(positions);
        if (!_active)
        {
            throw new SnapshotException($"{Device.Name} cannot go on: {_activationProblem}");
        }

        // An interrupt that was on its way when the state was saved; the driver reads why it came.
        if (_interruptStatus.Value != 0)
        {
            _interrupt?.Signal();
        }
    }
}
