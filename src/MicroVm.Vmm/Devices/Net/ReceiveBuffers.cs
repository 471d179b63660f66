using System.Runtime.InteropServices;
using MicroVm.Linux.Native;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Net;

/// <summary>
/// Receive buffers that were taken from the queue and are not used yet, as one array of iovecs for readv(2), with a buffer
/// of the host's at its end for the rest of a frame that is longer than the guest's. Each chain is popped once, however many frames
/// it takes to reach it. Owned by one thread.
/// </summary>
internal sealed unsafe class ReceiveBuffers : IDisposable
{
    private const int MaxVectors = Libc.IOV_MAX - 1;
    private const int SpillLength = NetHeader.Size + Ethernet.MaxFrame;
    private readonly Virtqueue _queue;
    private readonly DescriptorChain _chain;
    private readonly Libc.iovec* _vectors;
    private readonly byte* _spill;
    private readonly Entry[] _entries;
    private int _firstVector;
    private int _vectorCount;
    private int _firstEntry;
    private bool _full;

    public ReceiveBuffers(Virtqueue queue)
    {
        _queue = queue;
        _chain = new DescriptorChain(Math.Max(queue.Size, NetLimits.MaxSegments));
        _vectors = (Libc.iovec*)NativeMemory.Alloc(2 * (nuint)Libc.IOV_MAX, (nuint)sizeof(Libc.iovec));
        _spill = (byte*)NativeMemory.Alloc(SpillLength);
        _entries = new Entry[queue.Size];
    }

    /// <summary>Bytes that the chains in the window hold.</summary>
    public ulong Capacity { get; private set; }

    /// <summary>Number of chains in the window.</summary>
    public int Chains { get; private set; }

    /// <summary>The buffers, without the spill.</summary>
    public Libc.iovec* Vectors => _vectors + _firstVector;

    /// <summary>How many there are.</summary>
    public int VectorCount => _vectorCount;

    /// <summary>Every descriptor of the queue is here: the driver can offer no more.</summary>
    public bool HoldsAll => Chains == _entries.Length || _full;

    /// <summary>Takes chains until they hold <paramref name="needed"/> bytes, or <paramref name="chains"/> are there, or no more are offered.</summary>
    /// <returns>Whether there is any.</returns>
    public bool Fill(ulong needed, int chains)
    {
        _full = false;
        while (Capacity < needed && Chains < chains && Chains < _entries.Length)
        {
            if (!_queue.TryPop(_chain))
            {
                return Chains > 0 && !_queue.IsBroken;
            }

            // 5.1.6.3: receive buffers are device-writable, and the header fits the first (5.1.6.3.1).
            if (_chain.ReadableCount != 0 || _chain.WritableLength is < NetHeader.Size or > uint.MaxValue)
            {
                return _queue.Break("a receive buffer that is readable, or shorter than the header (5.1.6.3)");
            }

            if (_vectorCount + _chain.WritableCount > MaxVectors)
            {
                _queue.UndoPop();
                _full = true;
                break;
            }

            Append();
        }

        return Chains > 0;
    }

    /// <summary>The buffers with the spill behind them, for a call.</summary>
    public int WithSpill()
    {
        Vectors[_vectorCount] = new Libc.iovec { iov_base = _spill, iov_len = SpillLength };
        return _vectorCount + 1;
    }

    /// <summary>Copies what a call put behind the buffers, from <paramref name="offset"/> of the frame on, into buffers taken since.</summary>
    public void CopySpill(ulong offset, ulong length) => Write(offset, new ReadOnlySpan<byte>(_spill, (int)(length - offset)));

    /// <summary>Copies the first bytes of what was read, as far as the guest's buffers hold them.</summary>
    public void Copy(ulong offset, Span<byte> to)
    {
        Libc.iovec* v = Vectors;
        for (int i = 0; i < _vectorCount && to.Length > 0; i++)
        {
            if (offset >= v[i].iov_len)
            {
                offset -= v[i].iov_len;
                continue;
            }

            int n = (int)Math.Min(v[i].iov_len - offset, (ulong)to.Length);
            new ReadOnlySpan<byte>(v[i].iov_base + offset, n).CopyTo(to);
            to = to[n..];
            offset = 0;
        }
    }

    /// <summary>Gives the chains that hold a frame of <paramref name="length"/> bytes, header included, to the driver.</summary>
    public void Use(ulong length, bool mergeable)
    {
        // 5.1.6.4.1: without mergeable buffers there is 1, always.
        ushort buffers = 0;
        ulong covered = 0;
        do
        {
            covered += _entries[(_firstEntry + buffers) & (_entries.Length - 1)].Length;
            buffers++;
        }
        while (covered < length && mergeable);
        Write(NetHeader.NumBuffersOffset, [(byte)buffers, (byte)(buffers >> 8)]);

        for (int i = 0; i < buffers; i++)
        {
            ref Entry entry = ref _entries[_firstEntry];
            uint used = (uint)Math.Min(length, entry.Length);
            _queue.PushUsed(entry.Head, used);
            length -= used;
            Capacity -= entry.Length;
            _firstVector += entry.Vectors;
            _vectorCount -= entry.Vectors;
            _firstEntry = (_firstEntry + 1) & (_entries.Length - 1);
            Chains--;
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        // Unused chains go back, so that the queue's position is what the driver was given.
        for (; Chains > 0; Chains--)
        {
            _queue.UndoPop();
        }

        _chain.Dispose();
        NativeMemory.Free(_vectors);
        NativeMemory.Free(_spill);
    }

    private void Append()
    {
        int count = _chain.WritableCount;
        if (_firstVector + _vectorCount + count >= (2 * Libc.IOV_MAX) - 1)
        {
            new Span<Libc.iovec>(Vectors, _vectorCount).CopyTo(new Span<Libc.iovec>(_vectors, _vectorCount));
            _firstVector = 0;
        }

        new Span<Libc.iovec>(_chain.Writable, count).CopyTo(new Span<Libc.iovec>(Vectors + _vectorCount, count));
        _vectorCount += count;
        _entries[(_firstEntry + Chains) & (_entries.Length - 1)] = new Entry(_chain.Head, count, (uint)_chain.WritableLength);
        Chains++;
        Capacity += _chain.WritableLength;
    }

    private void Write(ulong offset, ReadOnlySpan<byte> bytes)
    {
        Libc.iovec* v = Vectors;
        for (int i = 0; i < _vectorCount && bytes.Length > 0; i++)
        {
            if (offset >= v[i].iov_len)
            {
                offset -= v[i].iov_len;
                continue;
            }

            int n = (int)Math.Min(v[i].iov_len - offset, (ulong)bytes.Length);
            bytes[..n].CopyTo(new Span<byte>(v[i].iov_base + offset, n));
            bytes = bytes[n..];
            offset = 0;
        }
    }

    private readonly record struct Entry(ushort Head, int Vectors, uint Length);
}
