using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>Opens by openat2(2), with the one policy for a resolution that was disturbed.</summary>
public static unsafe class Resolved
{
    private const int MaxAttempts = 128;

    /// <summary>
    /// Opens a path as <paramref name="how"/> restricts it. An interrupted call is made again, and so is one during whose resolution a
    /// name was moved (EAGAIN), 128 times at most: whoever moves names without end must not hold the caller.
    /// </summary>
    /// <param name="directory">Where the resolution begins.</param>
    /// <param name="path">The path, with a NUL at its end.</param>
    /// <param name="how">Flags, mode and restrictions.</param>
    /// <returns>A descriptor, or -1 with errno set.</returns>
    public static int Open(int directory, byte* path, Libc.open_how how)
    {
        int fd, attempts = 0;
        do
        {
            // Safe: the kernel reads the record on this frame, and the caller's path up to its NUL.
            fd = Libc.openat2(directory, path, &how, (nuint)sizeof(Libc.open_how));
        }
        while (fd < 0 && (Check.LastErrno == Errno.EINTR || (Check.LastErrno == Errno.EAGAIN && ++attempts < MaxAttempts)));
        return fd;
    }
}
