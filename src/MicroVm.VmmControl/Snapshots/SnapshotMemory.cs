using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.VmmControl.Snapshots;

/// <summary>The memory file of a snapshot: guest RAM as it lies in the backing file of a VM, with holes where it is zero.</summary>
public static unsafe class SnapshotMemory
{
    private const int BufferSize = 256 * PageChecksum.PageSize;

    /// <summary>Reads all of the file, and compares it with what the header says.</summary>
    /// <exception cref="SnapshotException">It is another file, or damaged.</exception>
    /// <exception cref="LinuxException">It cannot be read.</exception>
    public static void Verify(SafeFd file, SnapshotHeader header)
    {
        ArgumentNullException.ThrowIfNull(file);
        ArgumentNullException.ThrowIfNull(header);
        CheckLength(file, header);
        PageChecksum checksum = new();
        byte[] buffer = new byte[BufferSize];
        long length = (long)header.MemoryMiB << 20;
        for (long offset = NextData(file, 0); offset >= 0 && offset < length; offset = NextData(file, offset))
        {
            offset &= -PageChecksum.PageSize;
            int n = ReadWhole(file, buffer.AsSpan(0, (int)Math.Min(BufferSize, length - offset)), offset);
            for (int i = 0; i < n; i += PageChecksum.PageSize)
            {
                ReadOnlySpan<byte> page = buffer.AsSpan(i, PageChecksum.PageSize);
                if (!PageChecksum.IsZero(page))
                {
                    checksum.Append((ulong)(offset + i) / PageChecksum.PageSize, page);
                }
            }

            offset += n;
        }

        if (checksum.Bytes != header.MemoryBytes || checksum.Text != header.MemoryChecksum)
        {
            throw new SnapshotException($"the memory file is damaged or of another snapshot: its checksum is {checksum.Text}, not {header.MemoryChecksum}");
        }
    }

    /// <summary>Checks that the file is as long as the guest's RAM: a shorter one would end the VM when it touches what is not there.</summary>
    /// <exception cref="SnapshotException">It is not, or is no regular file.</exception>
    /// <exception cref="LinuxException">It cannot be asked.</exception>
    public static void CheckLength(SafeFd file, SnapshotHeader header)
    {
        ArgumentNullException.ThrowIfNull(file);
        ArgumentNullException.ThrowIfNull(header);
        Libc.statx_t stat;
        byte empty = 0;
        Check.Result(Libc.statx(file.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_TYPE | Libc.STATX_SIZE, &stat), "statx", "the memory file");
        if ((stat.stx_mode & Libc.S_IFMT) != Libc.S_IFREG || stat.stx_size != (ulong)header.MemoryMiB << 20)
        {
            throw new SnapshotException($"the memory file has {stat.stx_size} bytes, the snapshot is of a VM with {header.MemoryMiB} MiB");
        }
    }

    private static long NextData(SafeFd file, long offset)
    {
        long next = Libc.lseek(file.Value, offset, Libc.SEEK_DATA);
        if (next < 0 && Check.LastErrno != Errno.ENXIO)
        {
            Check.Throw("lseek(SEEK_DATA)", "the memory file");
        }

        return next;
    }

    private static int ReadWhole(SafeFd file, Span<byte> buffer, long offset)
    {
        int done = 0;
        fixed (byte* p = buffer)
        {
            while (done < buffer.Length)
            {
                nint n = Libc.pread(file.Value, p + done, (nuint)(buffer.Length - done), offset + done);
                if (n == 0)
                {
                    throw new SnapshotException($"the memory file ends at byte {offset + done}");
                }

                if (n > 0)
                {
                    done += (int)n;
                }
                else if (!Check.Retry(n))
                {
                    Check.Throw("pread", "the memory file");
                }
            }
        }

        return done;
    }
}
