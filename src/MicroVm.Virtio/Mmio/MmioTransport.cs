using System.Buffers.Binary;
using MicroVm.Bus;
using MicroVm.Bus.Counters;
using MicroVm.Linux;
using MicroVm.Memory;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Virtio.Mmio;

/// <summary>
/// The virtio-mmio register window, version 2, of one device (virtio 1.2, 4.2.2): negotiates features, collects the
/// queues' layouts, and activates the <see cref="VirtioDevice"/> when its driver says DRIVER_OK. A register written at
/// the wrong time changes nothing and is counted.
/// </summary>
/// <remarks>
/// vCPU threads enter through <see cref="IBusDevice"/>, one at a time by the lock. The device thread only touches the
/// status and interrupt bits, which are atomic, and never takes the lock: a vCPU thread holds it while it waits for
/// Activate or Reset on that thread. Owns the device and the eventfds.
/// </remarks>
public sealed class MmioTransport : IBusDevice, IVirtioInterrupt, ICounterSource, IDisposable
{
    private readonly Lock _lock = new();
    private readonly GuestMemory _memory;
    private readonly DriverFaultLog _faults;
    private readonly DeviceStatus _status = new();
    private readonly DriverFeatures _features = new();
    private readonly InterruptLine _interrupt;
    private readonly MmioQueues _queues;
    private readonly ServedDevice _served;
    private uint _shmSel;
    private int _configGeneration;
    private long _kicks;
    private long _violations;
    private long _needsResets;

    /// <summary>Version of the transport's part of a device's section.</summary>
    public const uint StateVersion = 1;

    /// <summary>Makes the window of <paramref name="device"/>, which it takes over.</summary>
    /// <param name="device">The device model.</param>
    /// <param name="memory">Guest RAM, borrowed.</param>
    /// <param name="loop">The device thread's loop, borrowed.</param>
    /// <param name="routing">Registers the eventfds with the host, borrowed.</param>
    /// <param name="baseAddress">GPA of the window.</param>
    /// <param name="gsi">The device's interrupt line.</param>
    public MmioTransport(
        VirtioDevice device, GuestMemory memory, EventLoop loop, IEventRouting routing, ulong baseAddress, uint gsi)
    {
        ArgumentNullException.ThrowIfNull(device);
        Device = device;
        _faults = new DriverFaultLog(device.Name);
        _memory = memory;
        BaseAddress = baseAddress;
        _interrupt = new InterruptLine(routing, gsi);
        _queues = new MmioQueues(device.QueueMaxSizes, routing, baseAddress + MmioRegister.QueueNotify);
        _served = new ServedDevice(device, memory, loop, _queues, _interrupt);
    }

    /// <summary>The device behind the window.</summary>
    public VirtioDevice Device { get; }

    /// <summary>GPA of the window.</summary>
    public ulong BaseAddress { get; }

    /// <summary>The device's interrupt line.</summary>
    public uint Gsi => _interrupt.Gsi;

    /// <summary>The device status field as the driver reads it.</summary>
    public VirtioStatus Status => _status.Value;

    /// <summary>True from a successful DRIVER_OK to the next reset.</summary>
    public bool IsActive
    {
        get
        {
            lock (_lock)
            {
                return _served.IsActive;
            }
        }
    }

    /// <summary>Register writes that broke an order rule and were ignored.</summary>
    public long Violations => Volatile.Read(ref _violations);

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        lock (_lock)
        {
            if (offset >= MmioRegister.Config)
            {
                Device.ReadConfig((uint)(offset - MmioRegister.Config), data);
                return;
            }

            data.Clear();
            if (data.Length == 4 && offset % 4 == 0)
            {
                BinaryPrimitives.WriteUInt32LittleEndian(data, ReadRegister((uint)offset));
            }
        }
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        lock (_lock)
        {
            if (offset >= MmioRegister.Config)
            {
                Device.WriteConfig((uint)(offset - MmioRegister.Config), data);
            }
            else if (data.Length == 4 && offset % 4 == 0)
            {
                WriteRegister((uint)offset, BinaryPrimitives.ReadUInt32LittleEndian(data));
            }
            else
            {
                Violation();
            }
        }
    }

    /// <inheritdoc/>
    public void SignalUsed() => _interrupt.Raise(InterruptStatus.Used);

    /// <inheritdoc/>
    public void SignalConfigChange()
    {
        Interlocked.Increment(ref _configGeneration);
        _interrupt.Raise(InterruptStatus.Config);
    }

    /// <inheritdoc/>
    public void SignalNeedsReset(string reason)
    {
        VirtioStatus before = _status.Add(VirtioStatus.NeedsReset);
        Interlocked.Increment(ref _needsResets);
        _faults.Add(reason);

        // 2.1.2: after DRIVER_OK the driver is told by a configuration change notification.
        if ((before & VirtioStatus.DriverOk) != 0)
        {
            SignalConfigChange();
        }
    }

    /// <inheritdoc/>
    public void CollectCounters(Action<string, long> add)
    {
        ArgumentNullException.ThrowIfNull(add);
        string name = Device.Name;
        add(name + ".kicks", Volatile.Read(ref _kicks));
        add(name + ".interrupts", _interrupt.Raised);
        add(name + ".violations", Violations);
        add(name + ".needs_reset", Volatile.Read(ref _needsResets));
        (Device as ICounterSource)?.CollectCounters(add);
    }

    /// <summary>Why the device cannot be saved as it is now: a sentence; null when it can. vCPUs and the device's threads stand still.</summary>
    public string? WhyNotSaved()
    {
        if ((Status & (VirtioStatus.NeedsReset | VirtioStatus.Failed)) != 0)
        {
            return $"{Device.Name} has failed and waits for its driver to reset it";
        }

        if (_queues.Busy is { } busy)
        {
            return $"{Device.Name} has requests under way in queue {busy}";
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
            _status.Save(writer);
            _interrupt.Save(writer);
            writer.Write(_configGeneration);
            _features.Save(writer);
            writer.Write(_queues.Selection);
            writer.Write(_shmSel);
            writer.WriteFlag(_served.IsActive);
            _queues.Save(writer);
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

            _status.Restore(reader);
            _interrupt.Restore(reader, _memory);
            _configGeneration = reader.Read<int>();
            _features.Restore(reader);
            _queues.Selection = reader.Read<uint>();
            _shmSel = reader.Read<uint>();
            bool active = reader.ReadFlag();
            CheckRestored(reader, active);
            ushort[] positions = _queues.Restore(reader, Device.Name);
            Device.RestoreState(reader);
            reader.End();
            if (active)
            {
                Reactivate(positions);
            }
        }
    }

    /// <summary>Stops the device and closes its descriptors. The vCPUs must have stopped.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            ResetDevice();
        }

        _faults.End();
        Device.Dispose();
        _interrupt.Dispose();
        _queues.Dispose();
    }

    private void Violation() => Interlocked.Increment(ref _violations);

    // Asked each time: a window may get its device later.
    private ulong Offered => Device.DeviceFeatures
        | VirtioFeature.Version1 | VirtioFeature.RingEventIdx | VirtioFeature.RingIndirectDesc;

    private uint ReadRegister(uint register) => register switch
    {
        MmioRegister.MagicValue => MmioRegister.Magic,
        MmioRegister.Version => 2,
        MmioRegister.DeviceId => Device.DeviceId,
        MmioRegister.VendorId => 0,
        MmioRegister.DeviceFeatures => _features.ReadOffered(Offered),
        MmioRegister.QueueNumMax => _queues.Selected?.MaxSize ?? 0u,
        MmioRegister.QueueReady => _queues.Selected is { Ready: true } ? 1u : 0u,
        MmioRegister.InterruptStatus => (uint)_interrupt.Status,
        MmioRegister.Status => (uint)_status.Value,
        MmioRegister.ShmLenLow => (uint)SharedMemory().Length,
        MmioRegister.ShmLenHigh => (uint)(SharedMemory().Length >> 32),
        MmioRegister.ShmBaseLow => (uint)SharedMemory().Gpa,
        MmioRegister.ShmBaseHigh => (uint)(SharedMemory().Gpa >> 32),
        MmioRegister.StatusWord => MmioRegister.StatusWordMagic,
        MmioRegister.ConfigGeneration => (uint)Volatile.Read(ref _configGeneration),
        _ => 0,
    };

    // 4.2.2.1: a region that does not exist has the length, and here the base too, of all ones.
    private (ulong Gpa, ulong Length) SharedMemory() =>
        _shmSel <= byte.MaxValue && Device.TryGetSharedMemory((byte)_shmSel, out ulong gpa, out ulong length)
            ? (gpa, length)
            : (ulong.MaxValue, ulong.MaxValue);

    private void WriteRegister(uint register, uint value)
    {
        switch (register)
        {
            case MmioRegister.DeviceFeaturesSel:
                _features.SelectOffered(value);
                break;
            case MmioRegister.DriverFeaturesSel:
                _features.SelectAccepted(value);
                break;
            case MmioRegister.DriverFeatures:
                WriteDriverFeatures(value);
                break;
            case MmioRegister.QueueSel:
                _queues.Selection = value;
                break;
            case MmioRegister.QueueNotify:
                Notify(value);
                break;
            case MmioRegister.InterruptAck:
                _interrupt.Acknowledge((int)value);
                break;
            case MmioRegister.Status:
                WriteStatus((VirtioStatus)(value & 0xff));
                break;
            case MmioRegister.ShmSel:
                _shmSel = value;
                break;
            case MmioRegister.StatusWordLow:
                _interrupt.WriteWordLow(value);
                break;
            case MmioRegister.StatusWordHigh:
                if (!_interrupt.TryMoveStatus(_memory, value))
                {
                    Violation();
                }

                break;
            case MmioRegister.QueueNum:
            case MmioRegister.QueueReady:
            case MmioRegister.QueueDescLow:
            case MmioRegister.QueueDescHigh:
            case MmioRegister.QueueDriverLow:
            case MmioRegister.QueueDriverHigh:
            case MmioRegister.QueueDeviceLow:
            case MmioRegister.QueueDeviceHigh:
                WriteQueue(register, value);
                break;
            default:
                Violation();
                break;
        }
    }

    private void WriteQueue(uint register, uint value)
    {
        // Queues are set up between FEATURES_OK and DRIVER_OK (3.1.1, step 7); RING_RESET is not offered, so not later.
        const VirtioStatus Relevant = VirtioStatus.FeaturesOk | VirtioStatus.DriverOk | VirtioStatus.Failed;
        if ((Status & Relevant) != VirtioStatus.FeaturesOk || _queues.Selected is not { } queue)
        {
            Violation();
        }
        else if (register == MmioRegister.QueueReady)
        {
            queue.Ready = (value & 1) != 0;
        }
        else
        {
            queue.Write(register, value);
        }
    }

    private void WriteDriverFeatures(uint value)
    {
        const VirtioStatus Relevant = VirtioStatus.Driver | VirtioStatus.FeaturesOk | VirtioStatus.Failed;
        if ((Status & Relevant) != VirtioStatus.Driver || !_features.TryWrite(value))
        {
            Violation();
        }
    }

    private void Notify(uint value)
    {
        if (_served.IsActive && _queues.TryKick(value))
        {
            Interlocked.Increment(ref _kicks);
        }
    }

    private void CheckRestored(StateReader reader, bool active)
    {
        if (!_status.IsPossible(active))
        {
            throw reader.Malformed($"the status of {Device.Name} is {(int)Status:x}");
        }

        if ((Status & VirtioStatus.FeaturesOk) != 0 && !_features.AreAcceptable(Offered))
        {
            throw new SnapshotException($"{Device.Name}: the driver uses features {_features.Accepted:x}, the device has {Offered:x}");
        }
    }

    private void Reactivate(ushort[] positions)
    {
        if (_served.TryStart(_features, this, positions) is { } problem)
        {
            SignalNeedsReset(problem);
            throw new SnapshotException($"{Device.Name} cannot go on: {problem}");
        }

        // The driver reads why it came.
        _interrupt.SignalRestored();
    }

    // 2.1 and 3.1.1.
    private void WriteStatus(VirtioStatus value)
    {
        if (value == VirtioStatus.None)
        {
            ResetDevice();
            return;
        }

        VirtioStatus current = Status;
        if (!DeviceStatus.IsAllowed(current, value, out VirtioStatus added))
        {
            Violation();
            return;
        }

        if ((added & VirtioStatus.Failed) != 0)
        {
            _status.Add(VirtioStatus.Failed);
            return;
        }

        _status.Add(added & (VirtioStatus.Acknowledge | VirtioStatus.Driver));
        if ((added & VirtioStatus.FeaturesOk) != 0)
        {
            // 3.1.1, step 6: the driver reads the status again to see whether the bit stuck.
            if (!_features.AreAcceptable(Offered))
            {
                return;
            }

            _status.Add(VirtioStatus.FeaturesOk);
        }

        if ((added & VirtioStatus.DriverOk) != 0)
        {
            _status.Add(VirtioStatus.DriverOk);
            if ((current & VirtioStatus.NeedsReset) == 0 && _served.TryStart(_features, this, positions: null) is { } problem)
            {
                SignalNeedsReset(problem);
            }
        }
    }

    private void ResetDevice()
    {
        if (_served.TryStop() is { } problem)
        {
            _faults.Add($"reset: {problem}");
        }

        _queues.Reset();
        _features.Reset();
        _shmSel = 0;
        _interrupt.Reset();
        _status.Reset();
    }
}
