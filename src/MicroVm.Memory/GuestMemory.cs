using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Memory;

/// <summary>
/// The guest's RAM. The only type that makes pointers into it; every view passes one overflow-safe range check, and a
/// range that is not wholly inside one region is refused. Owns the mapping and the backing descriptor.
/// </summary>
/// <remarks>
/// RAM lies at [0, 3 GiB) and, what is more than that, from 4 GiB up, which leaves the gap to the interrupt controllers
/// and the virtio-mmio windows. The guest writes to it at any time: whoever reads a value that it then trusts copies it
/// first.
/// </remarks>
public sealed class GuestMemory : IDisposable
{
    /// <summary>Where low RAM ends at the latest and the MMIO gap starts.</summary>
    public const ulong MmioGapStart = 0xC000_0000;

    /// <summary>Where the MMIO gap ends and high RAM starts.</summary>
    public const ulong MmioGapEnd = 0x1_0000_0000;

    /// <summary>The guest's page size in bytes.</summary>
    public const int PageSize = 4096;

    private readonly unsafe byte* _mapping;
    private readonly nuint _mappingLength;
    private readonly RamKind _kind;
    private readonly List<(ulong Start, ulong End)> _fileMapped = [];
    private GuestRegion[] _windows = [];
    private GuestRegion[] _regions;
    private GuestRegion _reserved;
    private SafeFd? _growth;
    private ulong _grown;
    private bool _disposed;

    // Safe: Map made length bytes at mapping, and each region is a part of them.
    private unsafe GuestMemory(SafeFd backing, byte* mapping, nuint length, RamKind kind)
    {
        Backing = backing;
        _kind = kind;
        _mapping = mapping;
        _mappingLength = length;
        _regions = length <= MmioGapStart
            ? [new GuestRegion(0, length, (nint)mapping, 0)]
            :
            [
                new GuestRegion(0, MmioGapStart, (nint)mapping, 0),
                new GuestRegion(MmioGapEnd, length - MmioGapStart, (nint)(mapping + MmioGapStart), MmioGapStart),
            ];
    }

    /// <summary>The memory file (memfd or a caller's file), owned by this object.</summary>
    public SafeFd Backing { get; }

    /// <summary>Addresses and pages for RAM that may be added; a length of 0 when there are none. Its offset is in a memory file of its own.</summary>
    public GuestRegion Reserved => _reserved;

    /// <summary>Bytes of <see cref="Reserved"/>, from its start on, that are RAM.</summary>
    public ulong Grown => _grown;

    /// <summary>Size in bytes of the RAM that the VM has from the start, without the gap.</summary>
    public ulong Size => _mappingLength;

    /// <summary>The regions, by rising address: one or two, and what was added to them (<see cref="Grow"/>).</summary>
    public ReadOnlySpan<GuestRegion> Regions => _regions;

    /// <summary>Makes RAM of <paramref name="size"/> bytes from a sealed memfd.</summary>
    /// <param name="size">Bytes; a multiple of 2 MiB when huge pages are asked for, else of the page size.</param>
    /// <param name="hugePages">Back it with 2 MiB pages from the host's pool.</param>
    /// <exception cref="LinuxException">The host has not the memory, the huge pages or the descriptors.</exception>
    public static GuestMemory Create(ulong size, bool hugePages = false)
    {
        ulong unit = hugePages ? 2ul << 20 : PageSize;
        ArgumentOutOfRangeException.ThrowIfZero(size);
        ArgumentOutOfRangeException.ThrowIfNotEqual(size % unit, 0ul, nameof(size));
        SafeFd fd = SafeFd.From(
            Libc.memfd_create("guest-ram", Libc.MFD_CLOEXEC | (hugePages ? Libc.MFD_HUGETLB : 0)), "memfd_create", "guest RAM");
        try
        {
            Check.Result(Libc.ftruncate(fd.Value, checked((long)size)), "ftruncate", "guest RAM");
            return Map(fd, size, hugePages ? RamKind.HugePages : RamKind.Anonymous);
        }
        catch
        {
            fd.Dispose();
            throw;
        }
    }

    /// <summary>Maps RAM from a file, private (copy on write: a template) or shared. Takes over <paramref name="backing"/>.</summary>
    /// <exception cref="LinuxException">The file cannot be mapped.</exception>
    public static GuestMemory FromFile(SafeFd backing, ulong size, bool copyOnWrite)
    {
        ArgumentNullException.ThrowIfNull(backing);
        ArgumentOutOfRangeException.ThrowIfZero(size);
        ArgumentOutOfRangeException.ThrowIfNotEqual(size % PageSize, 0ul, nameof(size));
        return Map(backing, size, copyOnWrite ? RamKind.CopyOfFile : RamKind.File);
    }

    /// <summary>
    /// A pointer to [<paramref name="gpa"/>, <paramref name="gpa"/> + <paramref name="length"/>), or null when any byte of
    /// it is outside RAM. A length of 0 inside a region is allowed.
    /// </summary>
    // Safe: Find answers only for ranges that lie wholly inside a region, and regions stay mapped until Dispose.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public unsafe byte* TryGetPointer(ulong gpa, ulong length) => Find(Volatile.Read(ref _regions), gpa, length);

    /// <summary>
    /// Tells of memory beside RAM whose pages may be missing at any time. Views of guest memory never lead there; only
    /// <see cref="TryGetWindowPointer"/> does. Before the guest runs.
    /// </summary>
    public void AddWindow(ulong gpa, ulong length, nint hva) => _windows = [.. _windows, new GuestRegion(gpa, length, hva, 0)];

    /// <summary>
    /// A pointer into a window, for system calls alone, which answer EFAULT where a page is missing: this process's own access
    /// would be a SIGBUS.
    /// </summary>
    /// <returns>Null when any byte is outside of all windows.</returns>
    // Safe: the range is wholly inside a window, whose owner keeps its addresses reserved; the caller hands it to system calls only.
    public unsafe byte* TryGetWindowPointer(ulong gpa, ulong length) => Find(_windows, gpa, length);

    /// <summary>Whether the whole range lies inside one region of RAM.</summary>
    // Safe: the pointer is compared with null, not followed.
    public unsafe bool Contains(ulong gpa, ulong length) => TryGetPointer(gpa, length) is not null;

    /// <summary>A view of guest RAM; false when any byte is outside it or the length does not fit a span.</summary>
    // Safe: the pointer covers length bytes of RAM, and the length fits an int.
    public unsafe bool TryGetSpan(ulong gpa, ulong length, out Span<byte> span)
    {
        byte* p = length <= int.MaxValue ? TryGetPointer(gpa, length) : null;
        span = p is null ? default : new Span<byte>(p, (int)length);
        return p is not null;
    }

    /// <summary>Copies out of guest RAM; false, with nothing read, when the range is not inside it.</summary>
    public bool TryRead(ulong gpa, Span<byte> destination)
    {
        if (!TryGetSpan(gpa, (ulong)destination.Length, out Span<byte> source))
        {
            return false;
        }

        source.CopyTo(destination);
        return true;
    }

    /// <summary>Copies into guest RAM; false, with nothing written, when the range is not inside it.</summary>
    public bool TryWrite(ulong gpa, ReadOnlySpan<byte> source)
    {
        if (!TryGetSpan(gpa, (ulong)source.Length, out Span<byte> destination))
        {
            return false;
        }

        source.CopyTo(destination);
        return true;
    }

    /// <summary>Reads one little-endian value, once; false when it is not inside RAM.</summary>
    public bool TryRead<T>(ulong gpa, out T value)
        where T : unmanaged
    {
        Unsafe.SkipInit(out value);
        return TryRead(gpa, MemoryMarshal.AsBytes(new Span<T>(ref value)));
    }

    /// <summary>Writes one little-endian value; false when it is not inside RAM.</summary>
    public bool TryWrite<T>(ulong gpa, in T value)
        where T : unmanaged => TryWrite(gpa, MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)));

    /// <summary>
    /// Puts pages of a file in the place of RAM, copy on write: nothing is read until it is touched, and VMs share what
    /// they do not change. The backing file does not hold these pages then. Before the guest runs only.
    /// </summary>
    /// <param name="gpa">First address; page-aligned.</param>
    /// <param name="file">The file, which must keep its content while the guest runs; it may be closed.</param>
    /// <param name="offset">First byte in the file; page-aligned.</param>
    /// <param name="length">Bytes, whole pages, all inside the file.</param>
    /// <returns>False, with nothing changed, when this RAM or this file does not allow it.</returns>
    // Safe: the pages that MAP_FIXED replaces are whole, aligned and inside this mapping.
    public unsafe bool TryMapFile(ulong gpa, SafeFd file, ulong offset, ulong length)
    {
        ArgumentNullException.ThrowIfNull(file);
        byte* p = TryGetPointer(gpa, length);
        if (p is null || _kind != RamKind.Anonymous || length == 0 || ((gpa | offset | length) & (PageSize - 1)) != 0)
        {
            return false;
        }

        const int Flags = Libc.MAP_PRIVATE | Libc.MAP_FIXED | Libc.MAP_NORESERVE;
        if ((nint)Libc.mmap(p, (nuint)length, Libc.PROT_READ | Libc.PROT_WRITE, Flags, file.Value, (long)offset) == -1)
        {
            return false;
        }

        _ = Libc.madvise(p, (nuint)length, Libc.MADV_DONTDUMP);
        ulong start = (ulong)(p - _mapping);
        _fileMapped.Add((start, start + length));
        return true;
    }

    /// <summary>
    /// Reserves addresses and pages for RAM that may be added while the guest runs. It costs the host nothing yet. Before the guest runs,
    /// and once.
    /// </summary>
    /// <param name="gpa">First address, behind all RAM; page-aligned.</param>
    /// <param name="length">Bytes, whole pages.</param>
    /// <exception cref="LinuxException">The host refuses.</exception>
    // Safe: the address that MapFile returns is kept as a number.
    public unsafe void Reserve(ulong gpa, ulong length)
    {
        ArgumentOutOfRangeException.ThrowIfZero(length);
        ArgumentOutOfRangeException.ThrowIfNotEqual((gpa | length) % PageSize, 0ul, nameof(length));
        ArgumentOutOfRangeException.ThrowIfLessThan(gpa, _regions[^1].End);
        ArgumentOutOfRangeException.ThrowIfNotEqual(_reserved.Length, 0ul, nameof(length));
        SafeFd fd = SafeFd.From(Libc.memfd_create("guest-ram", Libc.MFD_CLOEXEC), "memfd_create", "guest RAM");
        try
        {
            Check.Result(Libc.ftruncate(fd.Value, checked((long)length)), "ftruncate", "guest RAM");
            _reserved = new GuestRegion(gpa, length, (nint)MapFile(fd, length, Libc.MAP_SHARED), 0);
            _growth = fd;
        }
        catch
        {
            fd.Dispose();
            throw;
        }
    }

    /// <summary>Makes the first <paramref name="length"/> bytes of <see cref="Reserved"/> RAM, which they stay. One thread at a time.</summary>
    /// <param name="length">Bytes, whole pages, more than before.</param>
    /// <param name="show">Shows the guest what is new; when it throws, nothing has changed.</param>
    public void Grow(ulong length, Action<GuestRegion> show)
    {
        ArgumentNullException.ThrowIfNull(show);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, _reserved.Length);
        ArgumentOutOfRangeException.ThrowIfLessThanOrEqual(length, _grown);
        ArgumentOutOfRangeException.ThrowIfNotEqual(length % PageSize, 0ul, nameof(length));
        GuestRegion[] booted = _grown == 0 ? _regions : _regions[..^1];
        show(new GuestRegion(_reserved.Gpa + _grown, length - _grown, _reserved.Hva + (nint)_grown, _grown));
        _grown = length;

        // Others look addresses up meanwhile: they find the old regions, or the new ones.
        Volatile.Write(ref _regions, [.. booted, _reserved with { Length = length }]);
    }

    /// <summary>
    /// Gives the host back what backs the whole pages of a range. Read again, RAM is zeroes there; where a file's pages are mapped
    /// (<see cref="TryMapFile"/>), and in RAM that is a copy of a file, it is what the file holds. Any thread may call it while the guest runs.
    /// </summary>
    /// <param name="start">First byte, as <see cref="TryGetPointer"/> gave it.</param>
    /// <param name="length">Bytes of the range.</param>
    /// <param name="released">Bytes that were given back, whether or not the guest had touched them: less than the range holds of pages when the host refused some.</param>
    /// <returns>False when the range is not inside RAM, RAM is of huge pages, which the host may have no others of, or the host refused.</returns>
    // Safe: addresses are compared and subtracted; madvise(2) gets only whole pages that lie inside the mapping.
    public unsafe bool TryRelease(byte* start, ulong length, out ulong released)
    {
        released = 0;
        byte* added = (byte*)_reserved.Hva;
        if (added is not null && start >= added && (ulong)(start - added) < _reserved.Length)
        {
            return TryReleaseAdded((ulong)(start - added), length, out released);
        }

        ulong first = (ulong)(start - _mapping);
        if (start < _mapping || first > _mappingLength || length > _mappingLength - first || _kind == RamKind.HugePages)
        {
            return false;
        }

        ulong end = (first + length) & ~(ulong)(PageSize - 1);
        first = (first + PageSize - 1) & ~(ulong)(PageSize - 1);
        while (first < end)
        {
            bool isCopy = FindPiece(first, end, out ulong pieceEnd);

            // A hole in a file that VMs share would be a hole for all of them: the kernel refuses MADV_REMOVE on private mappings.
            if (Libc.madvise(_mapping + first, (nuint)(pieceEnd - first), isCopy ? Libc.MADV_DONTNEED : Libc.MADV_REMOVE) != 0)
            {
                return false;
            }

            released += pieceEnd - first;
            first = pieceEnd;
        }

        return true;
    }

    /// <summary>
    /// Makes this process's own copies of pages, where RAM is a copy of a file: all at once what a guest that writes to them makes KVM do page by
    /// page. Pages beyond RAM are left out, and where the host refuses, the guest does it. Any thread.
    /// </summary>
    /// <param name="first">The first page, by its place in the file.</param>
    /// <param name="count">How many.</param>
    // Safe: first is below the mapping's number of pages, and count is cut to those that are left.
    public unsafe void CopyPages(ulong first, ulong count)
    {
        ulong pages = _mappingLength / PageSize;
        if (_kind == RamKind.CopyOfFile && first < pages)
        {
            _ = Libc.madvise(_mapping + (first * PageSize), (nuint)(Math.Min(count, pages - first) * PageSize), Libc.MADV_POPULATE_WRITE);
        }
    }

    /// <summary>
    /// The parts of a region outside of which no byte was ever written: by rising address, whole pages. Where that cannot be told,
    /// all of the region. Reading what nobody wrote would cost the host memory.
    /// </summary>
    public IReadOnlyList<(ulong Start, ulong End)> UsedRanges(GuestRegion region)
    {
        if (_kind != RamKind.Anonymous)
        {
            return [(region.Gpa, region.End)];
        }

        long last = (long)(region.FileOffset + region.Length);
        List<(ulong Start, ulong End)> pieces =
        [
            .. _fileMapped.Where(p => p.Start >= region.FileOffset && p.Start < (ulong)last)
                .Select(p => (region.Gpa + (p.Start - region.FileOffset), region.Gpa + (p.End - region.FileOffset))),
        ];
        for (long offset = (long)region.FileOffset; offset < last;)
        {
            long start = Libc.lseek(Backing.Value, offset, Libc.SEEK_DATA);
            if (start < 0 || start >= last)
            {
                break;
            }

            long end = Math.Min(last, Libc.lseek(Backing.Value, start, Libc.SEEK_HOLE));
            if (end <= start)
            {
                return [(region.Gpa, region.End)];
            }

            pieces.Add((region.Gpa + ((ulong)start - region.FileOffset), region.Gpa + ((ulong)end - region.FileOffset)));
            offset = end;
        }

        pieces.Sort();
        List<(ulong Start, ulong End)> ranges = [];
        foreach ((ulong start, ulong end) in pieces)
        {
            if (ranges.Count > 0 && start <= ranges[^1].End)
            {
                ranges[^1] = (ranges[^1].Start, Math.Max(ranges[^1].End, end));
            }
            else
            {
                ranges.Add((start, end));
            }
        }

        return ranges;
    }

    /// <summary>The same by guest physical address; false, too, when the range is not inside one region.</summary>
    // Safe: the pointer covers length bytes of RAM.
    public unsafe bool TryRelease(ulong gpa, ulong length, out ulong released)
    {
        released = 0;
        byte* start = TryGetPointer(gpa, length);
        return start is not null && TryRelease(start, length, out released);
    }

    /// <summary>Unmaps the RAM and closes the backing file. No vCPU or device thread may be running.</summary>
    // Safe: unmaps what Map and Reserve mapped, once; no thread uses RAM any more, as the summary demands.
    public unsafe void Dispose()
    {
        if (!_disposed)
        {
            _disposed = true;
            _ = Libc.munmap(_mapping, _mappingLength);
            Backing.Dispose();
            if (_growth is not null)
            {
                _ = Libc.munmap((void*)_reserved.Hva, (nuint)_reserved.Length);
                _growth.Dispose();
            }
        }
    }

    // Safe: the offset is below the region's length, and so is the end of the range.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static unsafe byte* Find(GuestRegion[] regions, ulong gpa, ulong length)
    {
        foreach (ref readonly GuestRegion region in regions.AsSpan())
        {
            ulong offset = gpa - region.Gpa;

            // Both comparisons are on differences that cannot wrap: offset < Length first, then the room that is left.
            if (gpa >= region.Gpa && offset < region.Length && length <= region.Length - offset)
            {
                return (byte*)region.Hva + offset;
            }
        }

        return null;
    }

    /// <summary>Whether RAM at offset <paramref name="first"/> is a private copy of a file, and up to where that holds.</summary>
    private bool FindPiece(ulong first, ulong end, out ulong pieceEnd)
    {
        pieceEnd = end;
        foreach ((ulong start, ulong stop) in _fileMapped)
        {
            if (first >= start && first < stop)
            {
                pieceEnd = Math.Min(end, stop);
                return true;
            }

            if (start > first && start < pieceEnd)
            {
                pieceEnd = start;
            }
        }

        return _kind == RamKind.CopyOfFile;
    }

    // Added RAM is a memory file's, by small pages.
    // Safe: first and end are checked to lie inside the reserved mapping.
    private unsafe bool TryReleaseAdded(ulong first, ulong length, out ulong released)
    {
        released = 0;
        if (length > _reserved.Length - first)
        {
            return false;
        }

        ulong end = (first + length) & ~(ulong)(PageSize - 1);
        first = (first + PageSize - 1) & ~(ulong)(PageSize - 1);
        if (first < end)
        {
            Debug.Assert(end <= _reserved.Length, "the pages are outside of the reservation");
            if (Libc.madvise((byte*)_reserved.Hva + first, (nuint)(end - first), Libc.MADV_REMOVE) != 0)
            {
                return false;
            }

            released = end - first;
        }

        return true;
    }

    // Safe: MapFile maps size bytes, which the new object owns.
    private static unsafe GuestMemory Map(SafeFd fd, ulong size, RamKind kind) =>
        new(fd, MapFile(fd, size, kind == RamKind.CopyOfFile ? Libc.MAP_PRIVATE : Libc.MAP_SHARED), (nuint)size, kind);

    // Safe: the kernel chooses the address, and an error of mmap(2) throws before it is used.
    private static unsafe byte* MapFile(SafeFd fd, ulong size, int sharing)
    {
        void* p = Libc.mmap(null, (nuint)size, Libc.PROT_READ | Libc.PROT_WRITE, sharing | Libc.MAP_NORESERVE, fd.Value, 0);
        if ((nint)p == -1)
        {
            Check.Throw("mmap", $"guest RAM of {size >> 20} MiB");
        }

        // A core dump of the VMM must not hold the guest's secrets, nor its gigabytes.
        _ = Libc.madvise(p, (nuint)size, Libc.MADV_DONTDUMP);
        return (byte*)p;
    }
}
