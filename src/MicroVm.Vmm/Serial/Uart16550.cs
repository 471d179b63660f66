using MicroVm.Bus;
using MicroVm.Bus.Counters;
using MicroVm.Linux;
using MicroVm.Virtio.Mmio;

namespace MicroVm.Vmm.Serial;

/// <summary>
/// A 16550A serial port for early console and panic text (National Semiconductor PC16550D data sheet): output, the
/// transmitter-empty interrupt, loop-back and scratch, which is what Linux's 8250 driver asks of it. Nothing is ever
/// received. A byte is sent at once, so that the transmitter is always empty.
/// </summary>
public sealed partial class Uart16550 : IBusDevice, ICounterSource, IDisposable
{
    private const int Data = 0;
    private const int InterruptEnable = 1;
    private const int InterruptIdentification = 2;
    private const int LineControl = 3;
    private const int ModemControl = 4;
    private const int LineStatus = 5;
    private const int ModemStatus = 6;
    private const int Scratch = 7;

    private const byte EnableTransmitterEmpty = 2;
    private const byte NoInterrupt = 1;
    private const byte TransmitterEmpty = 2;
    private const byte FifosEnabled = 0xc0;
    private const byte FifoEnable = 1;
    private const byte DivisorAccess = 0x80;
    private const byte DataReady = 1;
    private const byte TransmitterIdle = 0x60;
    private const byte Loopback = 0x10;
    private const byte Out2 = 8;
    private const byte Connected = 0xb0;

    private readonly Lock _lock = new();
    private readonly BoundedOutput _output;
    private readonly IEventRouting _routing;
    private EventFd? _interrupt;
    private byte _interruptEnable;
    private byte _lineControl;
    private byte _modemControl;
    private byte _scratch;
    private byte _fifoControl;
    private byte _divisorLow = 12;
    private byte _divisorHigh;
    private byte _looped;
    private bool _loopedReady;
    private bool _emptyPending;
    private long _interrupts;

    /// <summary>Makes the port; <paramref name="output"/> is taken over.</summary>
    public Uart16550(BoundedOutput output, IEventRouting routing)
    {
        _output = output;
        _routing = routing;
    }

    /// <inheritdoc/>
    public void Read(ulong offset, Span<byte> data)
    {
        data.Fill(0xff);
        if (data.Length == 1)
        {
            lock (_lock)
            {
                data[0] = ReadRegister((int)offset);
            }
        }
    }

    /// <inheritdoc/>
    public void Write(ulong offset, ReadOnlySpan<byte> data)
    {
        if (data.Length == 1)
        {
            lock (_lock)
            {
                WriteRegister((int)offset, data[0]);
            }
        }
    }

    /// <inheritdoc/>
    public void CollectCounters(Action<string, long> add)
    {
        ArgumentNullException.ThrowIfNull(add);
        add("serial.interrupts", Volatile.Read(ref _interrupts));
        _output.CollectCounters(add);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _output.Dispose();
        _interrupt?.Dispose();
    }

    private bool DivisorLatch => (_lineControl & DivisorAccess) != 0;

    private byte ReadRegister(int register)
    {
        switch (register)
        {
            case Data when DivisorLatch:
                return _divisorLow;
            case Data:
                _loopedReady = false;
                return _looped;
            case InterruptEnable:
                return DivisorLatch ? _divisorHigh : _interruptEnable;
            case InterruptIdentification:
                byte fifos = (_fifoControl & FifoEnable) != 0 ? FifosEnabled : (byte)0;
                byte cause = _emptyPending ? TransmitterEmpty : NoInterrupt;
                _emptyPending = false;
                return (byte)(fifos | cause);
            case LineControl:
                return _lineControl;
            case ModemControl:
                return _modemControl;
            case LineStatus:
                return (byte)(TransmitterIdle | (_loopedReady ? DataReady : 0));
            case ModemStatus:
                return (_modemControl & Loopback) == 0 ? Connected : LoopedModemStatus();
            case Scratch:
                return _scratch;
            default:
                return 0xff;
        }
    }

    // In loop-back, DTR, RTS, OUT1 and OUT2 are connected to DSR, CTS, RI and DCD.
    private byte LoopedModemStatus() => (byte)(
        ((_modemControl & 1) << 5) | ((_modemControl & 2) << 3) | ((_modemControl & 4) << 4) | ((_modemControl & 8) << 4));

    private void WriteRegister(int register, byte value)
    {
        switch (register)
        {
            case Data when DivisorLatch:
                _divisorLow = value;
                break;
            case Data:
                Send(value);
                break;
            case InterruptEnable when DivisorLatch:
                _divisorHigh = value;
                break;
            case InterruptEnable:
                bool enabled = (value & ~_interruptEnable & EnableTransmitterEmpty) != 0;
                _interruptEnable = (byte)(value & 0xf);
                if (enabled)
                {
                    RaiseEmpty();
                }

                break;
            case InterruptIdentification:
                _fifoControl = value;
                break;
            case LineControl:
                _lineControl = value;
                break;
            case ModemControl:
                _modemControl = (byte)(value & 0x1f);
                break;
            case Scratch:
                _scratch = value;
                break;
        }
    }

    private void Send(byte value)
    {
        if ((_modemControl & Loopback) != 0)
        {
            _looped = value;
            _loopedReady = true;
            return;
        }

        _output.Write(value);
        if ((_interruptEnable & EnableTransmitterEmpty) != 0)
        {
            RaiseEmpty();
        }
    }

    private void RaiseEmpty()
    {
        _emptyPending = true;

        // On a PC, OUT2 gates the port's interrupt line.
        if ((_modemControl & Out2) == 0)
        {
            return;
        }

        if (_interrupt is null)
        {
            _interrupt = new EventFd();
            _routing.AddInterrupt(IoPorts.SerialIrq, _interrupt);
        }

        _interrupts++;
        _interrupt.Signal();
    }
}
