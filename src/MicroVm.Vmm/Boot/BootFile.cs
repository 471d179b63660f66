using System.Runtime.InteropServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Memory;

namespace MicroVm.Vmm.Boot;

/// <summary>
/// A kernel or initrd on the host, read by offset straight to where it is wanted. Owns its descriptor. Its content is
/// the caller's: nothing that is read from it is trusted.
/// </summary>
public sealed unsafe class BootFile : IDisposable
{
    private const ulong PageMask = GuestMemory.PageSize - 1;

    // A mapping costs about as much as reading this much.
    private const ulong WorthMapping = 64 << 10;
    private readonly SafeFd _fd;

    /// <summary>Takes over <paramref name="fd"/>; <paramref name="name"/> is what messages call it.</summary>
    /// <exception cref="BootException">It is not a file with a length: a pipe, a socket, a directory.</exception>
    public BootFile(SafeFd fd, string name)
    {
        ArgumentNullException.ThrowIfNull(fd);
        _fd = fd;
        Name = name;
        long length = Libc.lseek(fd.Value, 0, Libc.SEEK_END);
        if (length < 0)
        {
            fd.Dispose();
            throw new BootException(name, "is not a regular file; give a kernel or initrd image");
        }

        Length = (ulong)length;
    }

    /// <summary>What messages call the file: its path, or its descriptor.</summary>
    public string Name { get; }

    /// <summary>Length in bytes.</summary>
    public ulong Length { get; }

    /// <summary>Reads a structure.</summary>
    /// <exception cref="BootException">It does not lie wholly inside the file, or cannot be read.</exception>
    public T Read<T>(ulong offset, string what)
        where T : unmanaged
    {
        T value = default;
        ReadExactly(offset, MemoryMarshal.AsBytes(new Span<T>(ref value)), what);
        return value;
    }

    /// <summary>Fills <paramref name="destination"/>.</summary>
    /// <exception cref="BootException">The bytes do not lie wholly inside the file, or cannot be read.</exception>
    public void ReadExactly(ulong offset, Span<byte> destination, string what)
    {
        fixed (byte* p = destination)
        {
            ReadExactly(offset, p, (ulong)destination.Length, what);
        }
    }

    /// <summary>Puts bytes into guest RAM: whole pages by mapping them, copy on write, where that is possible, the rest by reading.</summary>
    /// <exception cref="BootException">The bytes are not in the file, the range is not in guest RAM, or the read fails.</exception>
    public void ReadInto(GuestMemory memory, ulong gpa, ulong offset, ulong length, string what)
    {
        ArgumentNullException.ThrowIfNull(memory);
        byte* p = memory.TryGetPointer(gpa, length);
        if (p is null)
        {
            throw new BootException(
                Name, $"{what} is to lie at {gpa:x}..{gpa + length:x}, which is not in the guest's {memory.Size >> 20} MiB of memory; give it more");
        }

        CheckInside(offset, length, what);
        ulong head = Math.Min(length, (0 - gpa) & PageMask);
        ulong pages = (length - head) & ~PageMask;
        if (pages >= WorthMapping && ((gpa ^ offset) & PageMask) == 0 && memory.TryMapFile(gpa + head, _fd, offset + head, pages))
        {
            ReadExactly(offset, p, head, what);
            ReadExactly(offset + head + pages, p + head + pages, length - head - pages, what);
            return;
        }

        ReadExactly(offset, p, length, what);
    }

    /// <inheritdoc/>
    public void Dispose() => _fd.Dispose();

    private void ReadExactly(ulong offset, byte* destination, ulong length, string what)
    {
        CheckInside(offset, length, what);
        ulong done = 0;
        while (done < length)
        {
            nint n = Libc.pread(_fd.Value, destination + done, (nuint)(length - done), (long)(offset + done));
            if (Check.Retry(n))
            {
                continue;
            }

            if (n <= 0)
            {
                throw new BootException(
                    Name, n == 0 ? $"{what}: the file became shorter while it was read" : $"{what}: {LinuxException.Text(Check.LastErrno)}");
            }

            done += (ulong)n;
        }
    }

    private void CheckInside(ulong offset, ulong length, string what)
    {
        if (offset > Length || length > Length - offset)
        {
            throw new BootException(Name, $"{what} ({length} bytes at {offset}) is not inside the file of {Length} bytes; it is cut off or not a kernel");
        }
    }
}
