using MicroVm.Linux;
using MicroVm.Memory;
using MicroVm.VmmControl.Snapshots;

namespace MicroVm.Virtio.Mmio;

/// <summary>
/// A device's interrupt: what it is for, and the eventfd that raises it. <see cref="Raise"/> may be called by any thread; all else
/// is guarded by the transport's lock. Owns the eventfd.
/// </summary>
internal sealed class InterruptLine(IEventRouting routing, uint gsi) : IDisposable
{
    private readonly InterruptStatus _status = new();
    private EventFd? _line;
    private uint _wordLow;
    private long _raised;

    /// <summary>The interrupt's number.</summary>
    public uint Gsi => gsi;

    /// <summary>The InterruptStatus register.</summary>
    public int Status => _status.Value;

    /// <summary>How often the line was raised.</summary>
    public long Raised => Volatile.Read(ref _raised);

    /// <summary>Adds bits to the status, and raises the line when the driver must be told of them.</summary>
    public void Raise(int bits)
    {
        if (_status.Add(bits))
        {
            Interlocked.Increment(ref _raised);
            _line?.Signal();
        }
    }

    /// <summary>The driver has taken <paramref name="bits"/>.</summary>
    public void Acknowledge(int bits) => _status.Acknowledge(bits);

    /// <summary>StatusWordLow: takes effect with <see cref="TryMoveStatus"/>.</summary>
    public void WriteWordLow(uint value) => _wordLow = value;

    /// <summary>StatusWordHigh: keeps the status in guest memory from now on, or, with the address 0, in the register.</summary>
    /// <returns>False when there is no RAM at the address.</returns>
    public bool TryMoveStatus(GuestMemory memory, uint high)
    {
        bool moved = _status.TryMove(memory, ((ulong)high << 32) | _wordLow, out bool isPending);
        if (isPending)
        {
            _line?.Signal();
        }

        return moved;
    }

    /// <summary>Makes the eventfd, and has the host raise the interrupt by it. Done once: later calls do nothing.</summary>
    /// <exception cref="LinuxException">The host refused.</exception>
    public void Connect()
    {
        if (_line is not null)
        {
            return;
        }

        EventFd line = new();
        try
        {
            routing.AddInterrupt(gsi, line);
        }
        catch
        {
            line.Dispose();
            throw;
        }

        _line = line;
    }

    /// <summary>Raises the line for bits in the driver's word: they were set before there was a line, and the driver takes them only when it is raised.</summary>
    public void SignalPending()
    {
        if (_status.IsPending)
        {
            _line?.Signal();
        }
    }

    /// <summary>Raises the line for bits in the register: an interrupt that was on its way when the state was saved.</summary>
    public void SignalRestored()
    {
        if (_status.Value != 0)
        {
            _line?.Signal();
        }
    }

    /// <summary>Back to the state after a device reset; the eventfd stays.</summary>
    public void Reset()
    {
        _wordLow = 0;
        _status.Reset();
    }

    /// <summary>Writes status and place.</summary>
    public void Save(StateWriter writer)
    {
        writer.Write(_status.Value);
        writer.Write(_status.Gpa);
        writer.Write(_wordLow);
    }

    /// <summary>Reads status and place.</summary>
    /// <exception cref="SnapshotException">There is no RAM at the place.</exception>
    public void Restore(StateReader reader, GuestMemory memory)
    {
        int bits = reader.Read<int>();
        ulong word = reader.Read<ulong>();
        _wordLow = reader.Read<uint>();
        if (!_status.TryRestore(memory, bits, word))
        {
            throw reader.Malformed($"there is no guest memory for the status word at {word:x}");
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _line?.Dispose();
}
