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
}
