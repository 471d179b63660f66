using MicroVm.Bus.Counters;

namespace MicroVm.Bus;

/// <summary>
/// Finds the device behind a port or a physical address. An access that hits none, or runs over a device's end, reads
/// as all ones and is ignored when written, as on a bus that nobody answers; both are counted.
/// </summary>
/// <remarks>Ranges are added before the vCPUs run; look-ups then need no lock and allocate nothing.</remarks>
public sealed class AddressBus : ICounterSource
{
    private readonly string _name;
    private Range[] _ranges = [];
    private long _unknownReads;
    private long _unknownWrites;

    /// <summary>Makes an empty bus; <paramref name="name"/> is the prefix of its counters.</summary>
    public AddressBus(string name) => _name = name;

    /// <summary>Reads that no device answered.</summary>
    public long UnknownReads => Volatile.Read(ref _unknownReads);

    /// <summary>Writes that no device took.</summary>
    public long UnknownWrites => Volatile.Read(ref _unknownWrites);

    /// <summary>Gives [<paramref name="start"/>, + <paramref name="length"/>) to <paramref name="device"/>.</summary>
    /// <exception cref="ArgumentException">The range is empty, wraps, or overlaps one that was given before.</exception>
    public void Add(ulong start, ulong length, IBusDevice device)
    {
        ArgumentNullException.ThrowIfNull(device);
        if (length == 0 || start + (length - 1) < start)
        {
            throw new ArgumentException($"the range of {length} bytes at {start:x} is empty or wraps", nameof(length));
        }

        int at = 0;
        foreach (Range r in _ranges)
        {
            if (start <= r.Start + (r.Length - 1) && r.Start <= start + (length - 1))
            {
                throw new ArgumentException($"the range of {length} bytes at {start:x} overlaps the one at {r.Start:x}", nameof(start));
            }

            at += r.Start < start ? 1 : 0;
        }

        Range[] grown = new Range[_ranges.Length + 1];
        _ranges.AsSpan(0, at).CopyTo(grown);
        grown[at] = new Range(start, length, device);
        _ranges.AsSpan(at).CopyTo(grown.AsSpan(at + 1));
        _ranges = grown;
    }

    /// <summary>A guest's read.</summary>
    public void Read(ulong address, Span<byte> data)
    {
        if (Find(address, data.Length, out ulong offset) is { } device)
        {
            device.Read(offset, data);
            return;
        }

        data.Fill(0xff);
        Interlocked.Increment(ref _unknownReads);
    }

    /// <summary>A guest's write.</summary>
    public void Write(ulong address, ReadOnlySpan<byte> data)
    {
        if (Find(address, data.Length, out ulong offset) is { } device)
        {
            device.Write(offset, data);
            return;
        }

        Interlocked.Increment(ref _unknownWrites);
    }

    /// <inheritdoc/>
    public void CollectCounters(Action<string, long> add)
    {
        ArgumentNullException.ThrowIfNull(add);
        add(_name + ".unknown.reads", UnknownReads);
        add(_name + ".unknown.writes", UnknownWrites);
    }

    private IBusDevice? Find(ulong address, int length, out ulong offset)
    {
        Range[] ranges = _ranges;
        int low = 0;
        int high = ranges.Length - 1;
        while (low <= high)
        {
            int middle = (low + high) >>> 1;
            ref readonly Range r = ref ranges[middle];
            offset = address - r.Start;
            if (address < r.Start)
            {
                high = middle - 1;
            }
            else if (offset >= r.Length)
            {
                low = middle + 1;
            }
            else
            {
                return (ulong)length <= r.Length - offset ? r.Device : null;
            }
        }

        offset = 0;
        return null;
    }

    private readonly record struct Range(ulong Start, ulong Length, IBusDevice Device);
}
