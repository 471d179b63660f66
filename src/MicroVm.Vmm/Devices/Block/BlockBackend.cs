using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Virtio;

namespace MicroVm.Vmm.Devices.Block;

/// <summary>The file or block device behind a disk; owns its descriptor. Offsets and lengths are checked by the caller.</summary>
internal sealed unsafe class BlockBackend : IDisposable
{
    /// <summary>Bytes of a sector, whatever the block size (5.2.5).</summary>
    public const int SectorSize = 512;

    private const int MaxVectors = 130;
    private const int ZeroesLength = 64 * 1024;
    private readonly SafeFd _file;
    private byte* _zeroes;

    /// <summary>Takes over <paramref name="file"/> and finds out its size.</summary>
    /// <exception cref="LinuxException">The size cannot be told.</exception>
    /// <exception cref="ArgumentException">It is neither a file nor a block device.</exception>
    public BlockBackend(string name, SafeFd file)
    {
        _file = file;
        Libc.statx_t status;
        byte empty = 0;
        Check.Result(
            Libc.statx(file.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_BASIC_STATS, &status), "statx", $"disk {name}");
        uint type = status.stx_mode & Libc.S_IFMT;
        ulong bytes = status.stx_size;
        if (type == Libc.S_IFBLK)
        {
            Check.Result(Libc.ioctl(file.Value, Libc.BLKGETSIZE64, &bytes), "ioctl(BLKGETSIZE64)", $"disk {name}");
        }
        else if (type != Libc.S_IFREG)
        {
            throw new ArgumentException($"disk {name}: neither a regular file nor a block device; give an image file.");
        }

        Sectors = bytes / SectorSize;
    }

    /// <summary>Capacity in sectors; a part of a sector at the end is not used.</summary>
    public ulong Sectors { get; }

    /// <summary>Reads [<paramref name="offset"/>, + <paramref name="length"/>) into the chain's writable bytes from the start.</summary>
    public bool Read(DescriptorChain chain, ulong offset, ulong length)
    {
        Libc.iovec* vectors = stackalloc Libc.iovec[MaxVectors];
        ulong done = 0;
        while (done < length)
        {
            int count = chain.SliceWritable(done, length - done, new Span<Libc.iovec>(vectors, MaxVectors));
            nint n = Libc.preadv(_file.Value, vectors, count, (long)(offset + done));
            if (n > 0)
            {
                done += (ulong)n;
            }
            else if (!Check.Retry(n))
            {
                // 0: the file was truncated behind our back.
                return false;
            }
        }

        return true;
    }

    /// <summary>Writes the chain's readable bytes behind the header to [<paramref name="offset"/>, + <paramref name="length"/>).</summary>
    public bool Write(DescriptorChain chain, ulong offset, ulong length)
    {
        Libc.iovec* vectors = stackalloc Libc.iovec[MaxVectors];
        ulong done = 0;
        while (done < length)
        {
            int count = chain.SliceReadable(
                BlockRequestHeader.Size + done, length - done, new Span<Libc.iovec>(vectors, MaxVectors));
            nint n = Libc.pwritev(_file.Value, vectors, count, (long)(offset + done));
            if (n > 0)
            {
                done += (ulong)n;
            }
            else if (!Check.Retry(n))
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>Makes everything written so far durable.</summary>
    public bool Flush()
    {
        int result;
        do
        {
            result = Libc.fdatasync(_file.Value);
        }
        while (Check.Retry(result));
        return result == 0;
    }

    /// <summary>Frees a range, which reads as zeroes afterwards.</summary>
    public BlockStatus Discard(ulong offset, ulong length) =>
        Allocate(Libc.FALLOC_FL_PUNCH_HOLE | Libc.FALLOC_FL_KEEP_SIZE, offset, length);

    /// <summary>Makes a range read as zeroes; by writing them where the file system knows no better way.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Bytes.</param>
    /// <param name="unmap">The range may be freed.</param>
    public BlockStatus WriteZeroes(ulong offset, ulong length, bool unmap)
    {
        BlockStatus status = unmap ? Discard(offset, length) : BlockStatus.Unsupported;
        if (status == BlockStatus.Unsupported)
        {
            status = Allocate(Libc.FALLOC_FL_ZERO_RANGE | Libc.FALLOC_FL_KEEP_SIZE, offset, length);
        }

        return status == BlockStatus.Unsupported ? WriteZeroBytes(offset, length) : status;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        if (_zeroes is not null)
        {
            _ = Libc.munmap(_zeroes, ZeroesLength);
            _zeroes = null;
        }

        _file.Dispose();
    }

    private BlockStatus Allocate(int mode, ulong offset, ulong length)
    {
        int result;
        do
        {
            result = Libc.fallocate(_file.Value, mode, (long)offset, (long)length);
        }
        while (Check.Retry(result));
        return result == 0 ? BlockStatus.Ok
            : Check.LastErrno is Errno.EOPNOTSUPP or Errno.ENOSYS ? BlockStatus.Unsupported
            : BlockStatus.IoError;
    }

    private BlockStatus WriteZeroBytes(ulong offset, ulong length)
    {
        if (_zeroes is null)
        {
            void* p = Libc.mmap(null, ZeroesLength, Libc.PROT_READ, Libc.MAP_PRIVATE | Libc.MAP_ANONYMOUS, -1, 0);
            if ((nint)p == -1)
            {
                return BlockStatus.IoError;
            }

            _zeroes = (byte*)p;
        }

        ulong done = 0;
        while (done < length)
        {
            nint n = Libc.pwrite(_file.Value, _zeroes, (nuint)Math.Min(length - done, ZeroesLength), (long)(offset + done));
            if (n > 0)
            {
                done += (ulong)n;
            }
            else if (!Check.Retry(n))
            {
                return BlockStatus.IoError;
            }
        }

        return BlockStatus.Ok;
    }
}
