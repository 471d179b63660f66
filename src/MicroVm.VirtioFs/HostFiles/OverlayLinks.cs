using MicroVm.Linux.Native;

namespace MicroVm.VirtioFs.HostFiles;

/// <summary>
/// Tells whether two names with one inode number on an overlay are one inode. An overlay without an index makes an inode of
/// its own for each name of a lower inode, all with the lower one's number, since each is copied up by itself.
/// </summary>
/// <remarks>A lock that is taken through one descriptor is in the way of another's if both are of one inode.</remarks>
internal static class OverlayLinks
{
    private const long FarBehind = 1L << 61;
    private static readonly long Position = FarBehind + Random.Shared.NextInt64(FarBehind / 2);

    /// <summary>The overlay's word on two descriptors that are open for reading.</summary>
    /// <returns><see cref="LinkKind.Separate"/> also when it cannot be found out, as where the host holds a lock on the whole file.</returns>
    // Safe: the kernel reads and writes locals of this call only.
    public static unsafe LinkKind Compare(int first, int second)
    {
        if (!IsFree(second) || !TryLock(first))
        {
            return LinkKind.Separate;
        }

        bool same = !IsFree(second);
        Libc.flock64 free = Range(Libc.F_UNLCK);
        _ = Libc.fcntl(first, Libc.F_OFD_SETLK, &free);
        return same ? LinkKind.Same : LinkKind.Separate;
    }

    // Safe: the kernel reads and writes locals of this call only.
    private static unsafe bool TryLock(int fd)
    {
        Libc.flock64 range = Range(Libc.F_RDLCK);
        return Libc.fcntl(fd, Libc.F_OFD_SETLK, &range) == 0;
    }

    // Safe: the kernel reads and writes locals of this call only.
    private static unsafe bool IsFree(int fd)
    {
        Libc.flock64 range = Range(Libc.F_WRLCK);
        return Libc.fcntl(fd, Libc.F_OFD_GETLK, &range) == 0 && range.l_type == Libc.F_UNLCK;
    }

    // One byte that no program has use for, and another one in each process.
    private static Libc.flock64 Range(int type) => new() { l_type = (short)type, l_start = Position, l_len = 1 };
}
