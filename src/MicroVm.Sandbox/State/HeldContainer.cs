using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.State;

/// <summary>A container's folder, held by flock on itself: one deletion at a time, and the id is not free before its end.</summary>
internal sealed unsafe class HeldContainer : IDisposable
{
    private readonly SafeFd _fd;
    private readonly string _folder;

    private HeldContainer(SafeFd fd, string folder)
    {
        _fd = fd;
        _folder = folder;
    }

    /// <summary>Whether it is still what the path names.</summary>
    internal bool IsThere => FileIdentity.Find(_folder) is { } now && now == FileIdentity.Of(_fd);

    /// <summary>Takes the folder; null when it is not there any more, or not to be had without waiting.</summary>
    /// <exception cref="SandboxException">It cannot be locked.</exception>
    internal static HeldContainer? Take(string folder, bool wait)
    {
        int fd = Libc.open(folder, Libc.O_RDONLY | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0);
        if (fd < 0)
        {
            return Check.LastErrno is Errno.ENOENT or Errno.ENOTDIR ? null : throw Failure(folder);
        }

        HeldContainer held = new(new SafeFd(fd), folder);
        int result;
        do
        {
            result = Libc.flock(fd, Libc.LOCK_EX | (wait ? 0 : Libc.LOCK_NB));
        }
        while (Check.Retry(result));
        if (result < 0 && Check.LastErrno != Errno.EAGAIN)
        {
            SandboxException failure = Failure(folder);
            held.Dispose();
            throw failure;
        }

        if (result == 0 && held.IsThere)
        {
            return held;
        }

        held.Dispose();
        return null;
    }

    public void Dispose() => _fd.Dispose();

    private static SandboxException Failure(string folder) =>
        new($"the state folder {folder} cannot be locked: {LinuxException.Text(Check.LastErrno)}");
}
