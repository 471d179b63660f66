using System.IO.Hashing;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Vmm.Devices.Pmem;

/// <summary>
/// A file's pages, mapped shared and read-only: however many VMs show the same file, the host has its pages once. Owns
/// the mapping. A file that is truncated while it is mapped ends a VM that touches what is gone, and nothing else.
/// </summary>
public sealed unsafe class FileImage : IDisposable
{
    /// <summary>
    /// Unit of <see cref="Length"/>: Linux takes memory to its memory map in pieces of 2 MiB (SUBSECTION_SIZE), and maps
    /// files from it by pages of that size.
    /// </summary>
    public const ulong Alignment = 2ul << 20;

    private readonly void* _reserved;
    private byte* _mapping;

    /// <summary>Maps <paramref name="file"/>, which the caller may close afterwards; what its last piece lacks reads as zeroes.</summary>
    /// <exception cref="LinuxException">The file cannot be mapped.</exception>
    /// <exception cref="ArgumentException">It is empty or not a regular file.</exception>
    public FileImage(SafeFd file)
    {
        ArgumentNullException.ThrowIfNull(file);
        Libc.statx_t stat;
        byte empty = 0;
        Check.Result(Libc.statx(file.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_BASIC_STATS, &stat), "statx", "the image");
        if ((stat.stx_mode & Libc.S_IFMT) != Libc.S_IFREG || stat.stx_size == 0)
        {
            throw new ArgumentException("is not a regular file with content; give an image of a file system", nameof(file));
        }

        FileLength = stat.stx_size;
        Identity = new FileIdentity(
            ((ulong)stat.stx_dev_major << 32) | stat.stx_dev_minor, stat.stx_ino, stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec);
        Length = checked(FileLength + Alignment - 1) & ~(Alignment - 1);
        void* reserved = Libc.mmap(null, (nuint)(Length + Alignment), Libc.PROT_NONE, Libc.MAP_PRIVATE | Libc.MAP_ANONYMOUS | Libc.MAP_NORESERVE, -1, 0);
        CheckMapped(reserved);

        // Aligned as in the guest, so that the host can map large pages too where the file has them.
        byte* start = (byte*)(((nuint)reserved + (nuint)Alignment - 1) & ~((nuint)Alignment - 1));
        _reserved = reserved;
        _mapping = start;
        try
        {
            const int Fixed = Libc.MAP_FIXED | Libc.MAP_NORESERVE;
            CheckMapped(Libc.mmap(start, (nuint)Length, Libc.PROT_READ, Libc.MAP_PRIVATE | Libc.MAP_ANONYMOUS | Fixed, -1, 0));
            CheckMapped(Libc.mmap(start, (nuint)FileLength, Libc.PROT_READ, Libc.MAP_SHARED | Fixed, file.Value, 0));
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    /// <summary>Length of the file in bytes.</summary>
    public ulong FileLength { get; }

    /// <summary>Which file it is.</summary>
    public FileIdentity Identity { get; }

    /// <summary>XXH3 with 64 bits of the file: reads all of it.</summary>
    public ulong Checksum()
    {
        XxHash3 hash = new();
        for (ulong done = 0; done < FileLength;)
        {
            int n = (int)Math.Min(FileLength - done, 1 << 30);
            hash.Append(new ReadOnlySpan<byte>(_mapping + done, n));
            done += (ulong)n;
        }

        return hash.GetCurrentHashAsUInt64();
    }

    /// <summary>Length of the mapping: a multiple of <see cref="Alignment"/>.</summary>
    public ulong Length { get; }

    /// <summary>First address of the mapping.</summary>
    public nint Address => (nint)_mapping;

    /// <summary>Unmaps it. No vCPU may be running.</summary>
    public void Dispose()
    {
        if (_mapping is not null)
        {
            _mapping = null;
            _ = Libc.munmap(_reserved, (nuint)(Length + Alignment));
        }
    }

    private static void CheckMapped(void* address)
    {
        if ((nint)address == -1)
        {
            Check.Throw("mmap", "the image");
        }
    }
}
