using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Vsock;

/// <summary>
/// Bytes from the guest that the host's socket did not take yet. Bounded by the credit that the guest was given; owns its
/// mapping. Pages are touched only as far as it fills.
/// </summary>
internal sealed unsafe class HostRing : IDisposable
{
    private readonly byte* _bytes;
    private readonly uint _capacity;
    private uint _read;
    private uint _write;

    /// <summary>Makes an empty ring of <paramref name="capacity"/> bytes: a power of two.</summary>
    /// <exception cref="LinuxException">The host has no memory.</exception>
    public HostRing(int capacity)
    {
        _capacity = (uint)capacity;
        void* p = Libc.mmap(
            null, (nuint)capacity, Libc.PROT_READ | Libc.PROT_WRITE, Libc.MAP_PRIVATE | Libc.MAP_ANONYMOUS, -1, 0);
        if ((nint)p == -1)
        {
            Check.Throw("mmap", "vsock buffer");
        }

        _bytes = (byte*)p;
    }

    /// <summary>How many bytes it can hold.</summary>
    public uint Capacity => _capacity;

    /// <summary>How many bytes it holds. The positions run free and wrap at 2^32, a multiple of the capacity.</summary>
    public uint Count => _write - _read;

    /// <summary>Appends [<paramref name="offset"/>, + <paramref name="length"/>) of a chain's readable bytes.</summary>
    /// <returns>False, with nothing appended, when it does not fit.</returns>
    public bool TryAppend(DescriptorChain chain, ulong offset, uint length)
    {
        if (length > _capacity - Count)
        {
            return false;
        }

        uint start = _write & (_capacity - 1);
        uint first = Math.Min(length, _capacity - start);
        int n = chain.CopyFromReadable(offset, new Span<byte>(_bytes + start, (int)first));
        n += chain.CopyFromReadable(offset + first, new Span<byte>(_bytes, (int)(length - first)));
        _write += (uint)n;
        return true;
    }

    /// <summary>Describes the bytes held, oldest first.</summary>
    /// <returns>How many of the two vectors are used.</returns>
    public int Peek(Libc.iovec* vectors)
    {
        uint start = _read & (_capacity - 1);
        uint first = Math.Min(Count, _capacity - start);
        vectors[0] = new Libc.iovec { iov_base = _bytes + start, iov_len = first };
        vectors[1] = new Libc.iovec { iov_base = _bytes, iov_len = Count - first };
        return Count == 0 ? 0 : first == Count ? 1 : 2;
    }

    /// <summary>Drops the oldest <paramref name="length"/> bytes.</summary>
    public void Consume(uint length) => _read += length;

    /// <summary>Empties it for another stream.</summary>
    public void Clear() => _read = _write = 0;

    /// <inheritdoc/>
    public void Dispose() => _ = Libc.munmap(_bytes, _capacity);
}
