using System.Runtime.InteropServices;
using MicroVm.Bus.Counters;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Console;

/// <summary>
/// virtio-console (virtio 1.2, 5.3) with one port. Bytes go between the host's descriptors and guest RAM without a copy;
/// nothing is buffered: input is read when the guest gave a buffer, and output that the host does not take stays in the
/// guest's buffer.
/// </summary>
public sealed unsafe partial class ConsoleDevice : VirtioDevice, ICounterSource, IEventHandler, IDeferredWork
{
    private const int ReceiveQueue = 0;
    private const int TransmitQueue = 1;
    private const int TurnBudget = 32;
    private readonly ConsolePort? _input;
    private readonly ConsolePort? _output;
    private readonly ConsoleCounters _counters = new();
    private readonly PosixSignalRegistration? _resize;
    private VirtioActivation? _activation;
    private Virtqueue? _rx;
    private Virtqueue? _tx;
    private DescriptorChain? _rxChain;
    private DescriptorChain? _txChain;
    private bool _turnQueued;

    /// <summary>Makes a console between two descriptors, both taken over.</summary>
    /// <param name="input">Read for the guest's input; none when null.</param>
    /// <param name="output">Written with the guest's output, which is discarded when null.</param>
    public ConsoleDevice(SafeFd? input, SafeFd? output)
    {
        _input = input is null ? null : new ConsolePort(input, output: false);
        _output = output is null ? null : new ConsolePort(output, output: true);
        if (Terminal is not null)
        {
            _resize = PosixSignalRegistration.Create(PosixSignal.SIGWINCH, _ => Volatile.Read(ref _activation)?.Interrupt.SignalConfigChange());
        }
    }

    /// <inheritdoc/>
    public override uint DeviceId => 3;

    /// <inheritdoc/>
    public override string Name => "console";

    /// <summary>Emergency write always; the size where a terminal tells it.</summary>
    public override ulong DeviceFeatures => ConsoleFeature.EmergencyWrite | (Terminal is null ? 0 : ConsoleFeature.Size);

    /// <inheritdoc/>
    public override ReadOnlySpan<ushort> QueueMaxSizes => [16, 16];

    private ConsolePort? Terminal => _output is { IsTerminal: true } ? _output : _input is { IsTerminal: true } ? _input : null;

    /// <inheritdoc/>
    public override void ReadConfig(uint offset, Span<byte> data)
    {
        ConsoleConfigSpace config = new() { MaxPorts = 1 };
        if (Terminal is { } terminal && terminal.TryGetSize(out ushort columns, out ushort rows))
        {
            config.Columns = columns;
            config.Rows = rows;
        }

        CopyConfig(MemoryMarshal.AsBytes(new ReadOnlySpan<ConsoleConfigSpace>(in config)), offset, data);
    }

    /// <summary>Emergency write (5.3.5): one character, at any time, from a vCPU's thread; dropped when the host has no room.</summary>
    public override void WriteConfig(uint offset, ReadOnlySpan<byte> data)
    {
        if (offset == ConsoleConfigSpace.EmergencyWriteOffset && !data.IsEmpty && _output is { } output)
        {
            byte character = data[0];
            Libc.iovec vector = new() { iov_base = &character, iov_len = 1 };
            if (output.Write(&vector, 1, out _) == PortResult.Done)
            {
                _counters.EmergencyBytes++;
            }
        }
    }

    /// <inheritdoc/>
    public override string? WhyNotSaved => null;

    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">The driver did not set up both queues.</exception>
    public override void Activate(VirtioActivation activation)
    {
        ArgumentNullException.ThrowIfNull(activation);
        Virtqueue rx = activation.Require(ReceiveQueue), tx = activation.Require(TransmitQueue);
        (_rx, _tx) = (rx, tx);
        _rxChain = new DescriptorChain(rx.Size);
        _txChain = new DescriptorChain(tx.Size);
        Volatile.Write(ref _activation, activation);
        try
        {
            activation.Loop.Add(rx.Kick.Fd, Libc.EPOLLIN, this);
            activation.Loop.Add(tx.Kick.Fd, Libc.EPOLLIN, this);
        }
        catch
        {
            Reset();
            throw;
        }

        ScheduleTurn();
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        if (_activation is not { } activation)
        {
            return;
        }

        activation.Loop.Remove(_rx!.Kick.Fd);
        activation.Loop.Remove(_tx!.Kick.Fd);
        WatchInput(false);
        WatchOutput(false);
        _txBusy = false;
        Volatile.Write(ref _activation, null);
        (_rx, _tx) = (null, null);
        _rxChain!.Dispose();
        _txChain!.Dispose();
    }

    /// <inheritdoc/>
    public void CollectCounters(Action<string, long> add)
    {
        ArgumentNullException.ThrowIfNull(add);
        _counters.Collect(Name, add);
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        Reset();
        _resize?.Dispose();
        _input?.Dispose();
        _output?.Dispose();
        base.Dispose();
    }

    void IEventHandler.OnReady(SafeFd fd, uint events)
    {
        if (fd == _rx?.Kick.Fd)
        {
            _ = _rx.Kick.Drain();
        }
        else if (fd == _tx?.Kick.Fd)
        {
            _ = _tx.Kick.Drain();
        }
        else if (fd == _input?.Fd)
        {
            // Not watched again before it was read: a level-triggered watch would spin while the guest has no buffer.
            WatchInput(false);
            _inputReady = true;
        }
        else if (fd == _output?.Fd)
        {
            WatchOutput(false);
        }

        ScheduleTurn();
    }

    void IDeferredWork.RunDeferred()
    {
        _turnQueued = false;
        if (_activation is not { } activation)
        {
            return;
        }

        bool more = Output();
        more |= Input();
        bool interrupt = _tx!.Publish();
        interrupt |= _rx!.Publish();
        if (interrupt)
        {
            activation.Interrupt.SignalUsed();
        }

        _ = _tx.ReportIfBroken(activation.Interrupt);
        _ = _rx.ReportIfBroken(activation.Interrupt);
        if (more)
        {
            ScheduleTurn();
        }
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
