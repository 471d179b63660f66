using System.Buffers.Binary;
using MicroVm.Bus;
using MicroVm.Bus.Counters;
using MicroVm.Linux;
using MicroVm.Memory;

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
public sealed partial class MmioTransport : IBusDevice, IVirtioInterrupt, ICounterSource, IDisposable
{
    private readonly Lock _lock = new();
    private readonly GuestMemory _memory;
    private readonly EventLoop _loop;
    private readonly IEventRouting _routing;
    private readonly MmioQueue[] _queues;
    private readonly DriverFaultLog _faults;
    private Virtqueue?[] _virtqueues = [];
    private string? _activationProblem;
    private EventFd? _interrupt;
    private ulong _driverFeatures;
    private uint _deviceFeaturesSel;
    private uint _driverFeaturesSel;
    private uint _queueSel;
    private uint _shmSel;
    private bool _active;
    private int _status;
    private readonly InterruptStatus _interruptStatus = new();
    private uint _statusWordLow;
    private int _configGeneration;
    private long _kicks;
    private long _interrupts;
    private long _violations;
    private long _needsResets;

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
        _loop = loop;
        _routing = routing;
        BaseAddress = baseAddress;
        Gsi = gsi;
        ReadOnlySpan<ushort> sizes = device.QueueMaxSizes;
        _queues = new MmioQueue[sizes.Length];
        for (int i = 0; i < sizes.Length; i++)
        {
            _queues[i] = new MmioQueue(sizes[i]);
        }
    }

    /// <summary>The device behind the window.</summary>
    public VirtioDevice Device { get; }

    /// <summary>GPA of the window.</summary>
    public ulong BaseAddress { get; }

    /// <summary>The device's interrupt line.</summary>
    public uint Gsi { get; }

    /// <summary>The device status field as the driver reads it.</summary>
    public VirtioStatus Status => (VirtioStatus)Volatile.Read(ref _status);

    /// <summary>True from a successful DRIVER_OK to the next reset.</summary>
    public bool IsActive
    {
        get
        {
            lock (_lock)
            {
                return _active;
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
    public void SignalUsed()
    {
        Raise(InterruptStatus.Used);
    }

    /// <inheritdoc/>
    public void SignalConfigChange()
    {
        Interlocked.Increment(ref _configGeneration);
        Raise(InterruptStatus.Config);
    }

    /// <inheritdoc/>
    public void SignalNeedsReset(string reason)
    {
        int before = Interlocked.Or(ref _status, (int)VirtioStatus.NeedsReset);
        Interlocked.Increment(ref _needsResets);
        _faults.Add(reason);

        // 2.1.2: after DRIVER_OK the driver is told by a configuration change notification.
        if ((before & (int)VirtioStatus.DriverOk) != 0)
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
        add(name + ".interrupts", Volatile.Read(ref _interrupts));
        add(name + ".violations", Violations);
        add(name + ".needs_reset", Volatile.Read(ref _needsResets));
        (Device as ICounterSource)?.CollectCounters(add);
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
        _interrupt?.Dispose();
        foreach (MmioQueue queue in _queues)
        {
            queue.Dispose();
        }
    }

    private void Raise(int bits)
    {
        if (_interruptStatus.Add(bits))
        {
            Interlocked.Increment(ref _interrupts);
            _interrupt?.Signal();
        }
    }

    private void MoveStatus(uint high)
    {
        ulong gpa = ((ulong)high << 32) | _statusWordLow;
        if (!_interruptStatus.TryMove(_memory, gpa, out bool isPending))
        {
            Violation();
        }

        if (isPending)
        {
            _interrupt?.Signal();
        }
    }

    private void Violation() => Interlocked.Increment(ref _violations);

    // Asked each time: a window may get its device later.
    private ulong Offered => Device.DeviceFeatures
        | VirtioFeature.Version1 | VirtioFeature.RingEventIdx | VirtioFeature.RingIndirectDesc;

    private MmioQueue? SelectedQueue => _queueSel < (uint)_queues.Length ? _queues[_queueSel] : null;

    private uint ReadRegister(uint register) => register switch
    {
        MmioRegister.MagicValue => MmioRegister.Magic,
        MmioRegister.Version => 2,
        MmioRegister.DeviceId => Device.DeviceId,
        MmioRegister.VendorId => 0,
        MmioRegister.DeviceFeatures => _deviceFeaturesSel switch
        {
            0 => (uint)Offered,
            1 => (uint)(Offered >> 32),
            _ => 0,
        },
        MmioRegister.QueueNumMax => SelectedQueue?.MaxSize ?? 0u,
        MmioRegister.QueueReady => SelectedQueue is { Ready: true } ? 1u : 0u,
        MmioRegister.InterruptStatus => (uint)_interruptStatus.Value,
        MmioRegister.Status => (uint)Volatile.Read(ref _status),
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
                _deviceFeaturesSel = value;
                break;
            case MmioRegister.DriverFeaturesSel:
                _driverFeaturesSel = value;
                break;
            case MmioRegister.DriverFeatures:
                WriteDriverFeatures(value);
                break;
            case MmioRegister.QueueSel:
                _queueSel = value;
                break;
            case MmioRegister.QueueNotify:
                Notify(value);
                break;
            case MmioRegister.InterruptAck:
                _interruptStatus.Acknowledge((int)value);
                break;
            case MmioRegister.Status:
                WriteStatus((VirtioStatus)(value & 0xff));
                break;
            case MmioRegister.ShmSel:
                _shmSel = value;
                break;
            case MmioRegister.StatusWordLow:
                _statusWordLow = value;
                break;
            case MmioRegister.StatusWordHigh:
                MoveStatus(value);
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
        if ((Status & Relevant) != VirtioStatus.FeaturesOk || SelectedQueue is not { } queue)
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
        if ((Status & Relevant) != VirtioStatus.Driver)
        {
            Violation();
        }
        else if (_driverFeaturesSel == 0)
        {
            _driverFeatures = (_driverFeatures & 0xffff_ffff_0000_0000) | value;
        }
        else if (_driverFeaturesSel == 1)
        {
            _driverFeatures = (_driverFeatures & 0xffff_ffff) | ((ulong)value << 32);
        }
        else if (value != 0)
        {
            // Bits from 64 on: none is offered, so accepting one is as wrong as accepting any other that is not.
            _driverFeatures &= ~VirtioFeature.Version1;
            Violation();
        }
    }

    private void Notify(uint value)
    {
        if (_active && value < (uint)_queues.Length && _queues[value] is { Ready: true, Kick: { } kick })
        {
            Interlocked.Increment(ref _kicks);
            kick.Signal();
        }
    }
}
