using System.Diagnostics;
using System.Runtime.InteropServices;
using MicroVm.Linux.Native;

namespace MicroVm.Virtio;

/// <summary>
/// One request taken from a virtqueue: its device-readable segments, then its device-writable ones, every one already
/// checked to lie inside guest memory. Made once and filled again by each <see cref="Virtqueue.TryPop"/>, so a request
/// allocates nothing. The owner disposes it.
/// </summary>
/// <remarks>
/// The segments' bytes belong to the guest, which may change them at any moment: copy before checking. Not thread-safe.
/// </remarks>
public sealed class DescriptorChain : IDisposable
{
    private unsafe Libc.iovec* _segments;
    private unsafe bool* _inWindow;
    private int _windowCount;

    /// <summary>
    /// Makes an empty chain that can hold <paramref name="capacity"/> segments. At least the queue's size; Linux builds
    /// longer indirect chains where a device's requests are longer (2.7.5.3.1 forbids it).
    /// </summary>
    // Safe: both tables have room for Capacity segments and are freed once, by Free.
    public unsafe DescriptorChain(int capacity)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(capacity);
        Capacity = capacity;
        _segments = (Libc.iovec*)NativeMemory.AllocZeroed((nuint)capacity, (nuint)sizeof(Libc.iovec));
        _inWindow = (bool*)NativeMemory.AllocZeroed((nuint)capacity);
    }

    /// <summary>Frees the segment table when the owner forgot to.</summary>
    ~DescriptorChain() => Free();

    /// <summary>How many segments fit.</summary>
    public int Capacity { get; }

    /// <summary>Index of the chain's head descriptor, which names it in the used ring.</summary>
    public ushort Head { get; private set; }

    /// <summary>Number of device-readable segments.</summary>
    public int ReadableCount { get; private set; }

    /// <summary>Number of device-writable segments.</summary>
    public int WritableCount { get; private set; }

    /// <summary>Sum of the device-readable lengths in bytes.</summary>
    public ulong ReadableLength { get; private set; }

    /// <summary>Sum of the device-writable lengths in bytes.</summary>
    public ulong WritableLength { get; private set; }

    /// <summary>The device-readable segments, ready for writev(2); valid until the next pop.</summary>
    // Safe: the first ReadableCount records are filled; the table lives until Dispose.
    public unsafe Libc.iovec* Readable => _segments;

    /// <summary>The device-writable segments, ready for readv(2); valid until the next pop.</summary>
    // Safe: ReadableCount is at most Capacity, so this is inside the table or its end.
    public unsafe Libc.iovec* Writable => _segments + ReadableCount;

    /// <summary>Copies device-readable bytes from <paramref name="offset"/> on.</summary>
    /// <returns>How many bytes were there: less than the destination's length when the chain is shorter.</returns>
    public int CopyFromReadable(ulong offset, Span<byte> destination) =>
        Copy(0, ReadableCount, offset, destination, toGuest: false);

    /// <summary>Copies into device-writable bytes from <paramref name="offset"/> on.</summary>
    /// <returns>How many bytes fitted: less than the source's length when the chain is shorter.</returns>
    public int CopyToWritable(ulong offset, ReadOnlySpan<byte> source) =>
        Copy(ReadableCount, WritableCount, offset, MemoryMarshal.CreateSpan(ref MemoryMarshal.GetReference(source), source.Length), toGuest: true);

    /// <summary>
    /// Describes [<paramref name="offset"/>, + <paramref name="length"/>) of the readable bytes as iovecs for a vectored call.
    /// </summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes wanted.</param>
    /// <param name="vectors">Room for <see cref="Capacity"/> records.</param>
    /// <returns>How many records were filled; they cover less than asked when the chain is shorter.</returns>
    // Safe: the first ReadableCount records are filled.
    public unsafe int SliceReadable(ulong offset, ulong length, Span<Libc.iovec> vectors) =>
        Slice(Readable, ReadableCount, offset, length, vectors);

    /// <summary>The same as <see cref="SliceReadable"/> for the writable bytes.</summary>
    // Safe: WritableCount records behind the readable ones are filled.
    public unsafe int SliceWritable(ulong offset, ulong length, Span<Libc.iovec> vectors) =>
        Slice(Writable, WritableCount, offset, length, vectors);

    /// <inheritdoc/>
    public void Dispose()
    {
        Free();
        GC.SuppressFinalize(this);
    }

    internal void Clear(ushort head)
    {
        Head = head;
        ReadableCount = 0;
        WritableCount = 0;
        ReadableLength = 0;
        WritableLength = 0;
        _windowCount = 0;
    }

    /// <summary>Appends a checked segment; false when the table is full or a readable one follows a writable one (2.7.4.2).</summary>
    /// <param name="start">First byte.</param>
    /// <param name="length">Number of bytes.</param>
    /// <param name="writable">Device-writable.</param>
    /// <param name="inWindow">Pages may be missing there: not to be copied from or to, for system calls only.</param>
    // Safe: the index is below Capacity.
    internal unsafe bool TryAppend(byte* start, uint length, bool writable, bool inWindow = false)
    {
        int n = ReadableCount + WritableCount;
        if (n == Capacity || (!writable && WritableCount > 0))
        {
            return false;
        }

        _segments[n] = new Libc.iovec { iov_base = start, iov_len = length };
        _inWindow[n] = inWindow;
        _windowCount += inWindow ? 1 : 0;
        if (writable)
        {
            WritableCount++;
            WritableLength += length;
        }
        else
        {
            ReadableCount++;
            ReadableLength += length;
        }

        return true;
    }

    /// <summary>Copies as far as there are segments whose pages are there for sure.</summary>
    // Safe: every record was checked to be RAM for its length, and n stays inside the record and the host's span; records in a window are not touched.
    private unsafe int Copy(int first, int count, ulong offset, Span<byte> host, bool toGuest)
    {
        Debug.Assert(_segments is not null && first + count <= Capacity, "the chain was disposed, or has more segments than room");
        Libc.iovec* segments = _segments + first;
        int done = 0;
        for (int i = 0; i < count && done < host.Length; i++)
        {
            ulong length = segments[i].iov_len;
            if (offset >= length)
            {
                offset -= length;
                continue;
            }

            if (_windowCount > 0 && _inWindow[first + i])
            {
                break;
            }

            int n = (int)Math.Min(length - offset, (ulong)(host.Length - done));
            Span<byte> guest = new(segments[i].iov_base + offset, n);
            if (toGuest)
            {
                host.Slice(done, n).CopyTo(guest);
            }
            else
            {
                guest.CopyTo(host[done..]);
            }

            done += n;
            offset = 0;
        }

        return done;
    }

    // Safe: only the first count records are read, and what is filled is bounded by the span; each stays inside its record.
    private static unsafe int Slice(Libc.iovec* segments, int count, ulong offset, ulong length, Span<Libc.iovec> vectors)
    {
        int filled = 0;
        for (int i = 0; i < count && length > 0 && filled < vectors.Length; i++)
        {
            ulong have = segments[i].iov_len;
            if (offset >= have)
            {
                offset -= have;
                continue;
            }

            ulong n = Math.Min(have - offset, length);
            vectors[filled++] = new Libc.iovec { iov_base = segments[i].iov_base + offset, iov_len = (nuint)n };
            length -= n;
            offset = 0;
        }

        return filled;
    }

    // Safe: the tables came from NativeMemory; the pointers are null afterwards, so a second call frees nothing.
    private unsafe void Free()
    {
        NativeMemory.Free(_segments);
        NativeMemory.Free(_inWindow);
        _segments = null;
        _inWindow = null;
    }
}
