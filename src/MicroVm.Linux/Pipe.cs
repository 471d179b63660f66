using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>Pipes (pipe2(2)).</summary>
public static unsafe class Pipe
{
    /// <summary>A pipe, blocking and close-on-exec; the caller owns both ends.</summary>
    /// <exception cref="LinuxException">No descriptor is free.</exception>
    public static (SafeFd Read, SafeFd Write) Create()
    {
        int* fds = stackalloc int[2];
        Check.Result(Libc.pipe2(fds, Libc.O_CLOEXEC), "pipe2");
        return (new SafeFd(fds[0]), new SafeFd(fds[1]));
    }

    /// <summary>Writes all of <paramref name="bytes"/> for a process that reads the other end.</summary>
    /// <returns>False when it has ended, as whoever waits for its work will be told.</returns>
    public static bool TryWrite(SafeFd write, ReadOnlySpan<byte> bytes)
    {
        try
        {
            HostFile.WriteAll(write, bytes, "pipe");
            return true;
        }
        catch (LinuxException)
        {
            return false;
        }
    }
}
