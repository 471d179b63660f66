using System.Runtime.InteropServices;
using MicroVm.Bus.Counters;
using MicroVm.Jail;
using MicroVm.Linux;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Net;

/// <summary>
/// virtio-net (virtio 1.2, 5.1) on a tap interface, which is attached when the device is made or later. Until then the
/// window holds no device (device id 0, 4.2.3.1.1), so that the guest's driver can be bound once there is one.
/// </summary>
/// <remarks>
/// Each queue pair has a thread of its own; the control queue is served on the event loop. The filter is the only state that
/// they share, an immutable object.
/// </remarks>
internal sealed class NetDevice : VirtioDevice, ICounterSource
{
    private readonly ushort[] _queueSizes;
    private readonly int _maxPairs;
    private TapBackend? _tap;
    private NetConfigSpace _config;
    private FrameRules _rules = new(default, 0, 0);
    private RateLimiter? _receiveLimit;
    private RateLimiter? _transmitLimit;
    private ulong _features;
    private VirtioActivation? _activation;
    private readonly DeviceThread[] _threads;
    private NetPair[] _pairs = [];
    private NetControl? _control;
    private ReceiveFilter _filter = new(default(MacAddress));
    private volatile int _maxReceiveFrame;

    /// <summary>Makes a device without an interface.</summary>
    /// <param name="name">Name for logs and counters: "net0".</param>
    /// <param name="maxPairs">Most queue pairs, 1 to 8.</param>
    public NetDevice(string name, int maxPairs)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(maxPairs);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(maxPairs, NetLimits.MaxPairs);
        Name = name;
        _maxPairs = maxPairs;
        _queueSizes = new ushort[(2 * maxPairs) + 1];
        Array.Fill(_queueSizes, NetLimits.QueueSize);
        _queueSizes[^1] = NetLimits.ControlQueueSize;
        _threads = new DeviceThread[maxPairs];
        for (int i = 0; i < maxPairs; i++)
        {
            _threads[i] = new DeviceThread($"{name}.{i}", ThreadKind.Network);
        }
    }

    /// <summary>1, or 0 while no interface is attached.</summary>
    public override uint DeviceId => _tap is null ? 0u : 1u;

    /// <inheritdoc/>
    public override string Name { get; }

    /// <inheritdoc/>
    public override ulong DeviceFeatures => _features;

    /// <inheritdoc/>
    public override ReadOnlySpan<ushort> QueueMaxSizes => _queueSizes;

    /// <summary>Whether an interface is attached.</summary>
    public bool IsAttached => _tap is not null;

    internal NetCounters Counters { get; } = new();

    /// <summary>What the guest receives; replaced as a whole.</summary>
    internal ReceiveFilter Filter
    {
        get => Volatile.Read(ref _filter);
        set => Volatile.Write(ref _filter, value);
    }

    /// <summary>What frames from the guest must keep to; replaced as a whole.</summary>
    internal FrameRules Rules
    {
        get => Volatile.Read(ref _rules);
        private set => Volatile.Write(ref _rules, value);
    }

    /// <summary>Longest frame that comes as it is on the wire.</summary>
    internal int MaxReceiveFrame => _maxReceiveFrame;

    /// <summary>Attaches a tap, which is taken over. Device thread, or before the machine runs.</summary>
    /// <exception cref="ArgumentException">The tap cannot be used, or one is attached already.</exception>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void Attach(SafeFd[] queues, NetInterface settings)
    {
        if (_tap is not null)
        {
            throw new ArgumentException($"{Name} has an interface already: {_tap.Name}");
        }

        if (queues.Length == 0 || queues.Length > _maxPairs)
        {
            throw new ArgumentException($"{queues.Length} tap descriptors were given; {Name} takes 1 to {_maxPairs}");
        }

        CheckMtu(settings.Mtu);
        TapBackend tap = TapBackend.Open(queues);
        _config = new NetConfigSpace
        {
            Status = settings.LinkDown ? (ushort)0 : NetConfigSpace.LinkUp,
            MaxQueuePairs = (ushort)queues.Length,
            Mtu = (ushort)settings.Mtu,
        };
        settings.Mac.Write(_config.Mac);
        Rules = new FrameRules(settings.Mac, settings.Mtu, 0);
        _maxReceiveFrame = LongestFrame(settings.Mtu);
        _receiveLimit = RateLimiter.Create(settings.Receive);
        _transmitLimit = RateLimiter.Create(settings.Transmit);
        _features = NetFeature.Csum | NetFeature.GuestCsum | NetFeature.CtrlGuestOffloads | NetFeature.Mac
            | NetFeature.GuestTso4 | NetFeature.GuestTso6 | NetFeature.GuestEcn | NetFeature.GuestUfo
            | NetFeature.HostTso4 | NetFeature.HostTso6 | NetFeature.HostEcn | NetFeature.HostUfo
            | NetFeature.MrgRxbuf | NetFeature.Status | NetFeature.CtrlVq | NetFeature.CtrlRx | NetFeature.CtrlVlan
            | NetFeature.CtrlRxExtra | NetFeature.CtrlMacAddr
            | (settings.Mtu > 0 && !settings.MtuMayChange ? NetFeature.Mtu : 0)
            | (queues.Length > 1 ? NetFeature.Mq : 0)
            | (tap.HasUso ? NetFeature.HostUso | NetFeature.GuestUso4 | NetFeature.GuestUso6 : 0);
        Volatile.Write(ref _tap, tap);
    }

    /// <inheritdoc/>
    public override void ReadConfig(uint offset, Span<byte> data) =>
        CopyConfig(MemoryMarshal.AsBytes(new ReadOnlySpan<NetConfigSpace>(in _config)), offset, data);

    /// <summary>Tells the guest that its link is up or down (5.1.4.1). Device thread.</summary>
    public void SetLink(bool up)
    {
        _config.Status = up ? NetConfigSpace.LinkUp : (ushort)0;
        _activation?.Interrupt.SignalConfigChange();
    }

    /// <summary>
    /// The interface has another address or MTU now: frames are checked and filtered by those, and the driver may take the
    /// address over. Device thread.
    /// </summary>
    /// <exception cref="ArgumentException">The MTU is not possible.</exception>
    public void Change(MacAddress mac, int mtu)
    {
        CheckMtu(mtu);
        _config.Mtu = (ushort)mtu;
        mac.Write(_config.Mac);
        Rules = Rules with { Source = mac, Mtu = mtu };
        Filter = Filter with { Own = mac };
        _maxReceiveFrame = LongestFrame(mtu);
    }

    /// <summary>Gives the tap up and leaves an empty window. The driver must have let go of the device. Device thread.</summary>
    public void Detach()
    {
        Reset();
        _features = 0;
        TapBackend? tap = _tap;
        Volatile.Write(ref _tap, null);
        tap?.Dispose();
    }

    /// <summary>Only a window without an interface can be saved so far.</summary>
    public override string? WhyNotSaved => IsAttached ? $"{Name} has an interface, whose state cannot be saved: detach it first" : null;

    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">The driver did not set up the first queue pair, or there is no interface.</exception>
    public override void Activate(VirtioActivation activation)
    {
        ArgumentNullException.ThrowIfNull(activation);
        TapBackend tap = _tap ?? throw new InvalidOperationException("no interface is attached");
        ulong features = activation.DriverFeatures;
        bool several = (features & NetFeature.Mq) != 0;
        Rules = Rules with { Features = features };
        Filter = new ReceiveFilter(Rules.Source)
        {
            // Without the commands to choose, the driver filters itself.
            Promiscuous = (features & NetFeature.CtrlRx) == 0,
            Vlans = (features & NetFeature.CtrlVlan) == 0 ? null : new ulong[64],
        };
        if (!tap.SetOffloads(features & NetFeature.GuestOffloads))
        {
            throw new InvalidOperationException($"{tap.Name} does not take the offloads 0x{features & NetFeature.GuestOffloads:x}");
        }

        _activation = activation;
        try
        {
            // 5.1.2: without MQ there is one pair, and the control queue comes right behind it.
            NetPair[] pairs = new NetPair[several ? tap.Queues.Count : 1];
            for (int i = 0; i < pairs.Length; i++)
            {
                // Its timers are made here: the thread that serves it may make none.
                NetPair pair = MakePair(i, tap, activation);
                try
                {
                    _threads[i].Serve(activation.Interrupt, pair.Begin);
                }
                catch
                {
                    pair.Dispose();
                    throw;
                }

                pairs[i] = pair;
                _pairs = pairs[..(i + 1)];
            }

            if ((features & NetFeature.CtrlVq) != 0 && activation.Queues[several ? 2 * _config.MaxQueuePairs : 2] is { } control)
            {
                _control = new NetControl(control, activation, this);
            }

            // 5.1.6.5.5: one pair until the driver asks for more.
            _ = TryUsePairs(1);
        }
        catch
        {
            Reset();
            throw;
        }
    }

    /// <inheritdoc/>
    public override void StartThreads() => Array.ForEach(_threads, t => t.Start());

    /// <inheritdoc/>
    public override void NarrowThreads() => Array.ForEach(_threads, t => t.Narrow());

    /// <inheritdoc/>
    public override bool TryPark(int milliseconds)
    {
        NetPair[] pairs = _pairs;
        for (int i = 0; i < pairs.Length; i++)
        {
            if (!_threads[i].TryPark(pairs[i].Dispose, milliseconds))
            {
                return false;
            }
        }

        return true;
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        _control?.Dispose();
        _control = null;
        _ = TryPark(Timeout.Infinite);
        _pairs = [];
        _activation = null;
    }

    /// <summary>Spreads received frames over the first <paramref name="count"/> pairs (5.1.6.5.5).</summary>
    /// <returns>False when there are not as many.</returns>
    public bool TryUsePairs(int count)
    {
        if (count < 1 || count > _pairs.Length || !_tap!.UseQueues(count))
        {
            return false;
        }

        for (int i = 0; i < _pairs.Length; i++)
        {
            _pairs[i].Enable(i < count);
        }

        return true;
    }

    /// <summary>Sets what the guest takes unfinished (5.1.6.5.6).</summary>
    public bool TrySetOffloads(ulong offloads) => _tap!.SetOffloads(offloads);

    /// <inheritdoc/>
    public void CollectCounters(Action<string, long> add)
    {
        ArgumentNullException.ThrowIfNull(add);
        if (IsAttached)
        {
            Counters.Collect(Name, add);
        }
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        Reset();
        Array.ForEach(_threads, t => t.Dispose());
        _tap?.Dispose();
        base.Dispose();
    }

    private static int LongestFrame(int mtu) => mtu > 0 ? mtu + Ethernet.HeaderLength + (2 * Ethernet.VlanTagLength) : Ethernet.MaxFrame;

    private static void CheckMtu(int mtu)
    {
        // 68: the least that IPv4 allows (RFC 791).
        if (mtu != 0 && mtu is < 68 or > ushort.MaxValue)
        {
            throw new ArgumentException($"the MTU {mtu} is not 68 to 65535");
        }
    }

    private NetPair MakePair(int index, TapBackend tap, VirtioActivation activation)
    {
        Virtqueue rx = activation.Require(2 * index), tx = activation.Require((2 * index) + 1);
        return new NetPair(
            _threads[index],
            rx,
            tx,
            tap,
            tap.Queues[index],
            activation.Interrupt,
            new NetReceiver(rx, tap.Queues[index], this, activation.DriverFeatures, _receiveLimit, Counters),
            new NetTransmitter(tx, tap.Queues[index], this, _transmitLimit, Counters));
    }
}

/// <summary>What a device shows of the interface that it stands for.</summary>
/// <param name="Mac">Its address.</param>
/// <param name="Mtu">Its MTU; 0 when the guest is to choose.</param>
/// <param name="Receive">Limit of what the guest receives.</param>
/// <param name="Transmit">Limit of what it sends.</param>
/// <param name="MtuMayChange">The guest is not told the MTU, which its driver would take for the most that there can be.</param>
/// <param name="LinkDown">The link is down at first.</param>
internal readonly record struct NetInterface(MacAddress Mac, int Mtu, NetRateLimit Receive, NetRateLimit Transmit, bool MtuMayChange = false, bool LinkDown = false);
