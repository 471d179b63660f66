using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Boot;

/// <summary>The guest's own device nodes: in devtmpfs, which the kernel mounts over an image's /dev, or made when they are first needed in an initramfs.</summary>
public static unsafe class GuestDeviceNodes
{
    /// <summary>Opens a character device, and makes its node when it is missing.</summary>
    /// <exception cref="LinuxException">The kernel has no such device.</exception>
    public static SafeFd Open(string path, uint major, uint minor, int flags)
    {
        int fd = Libc.open(path, flags | Libc.O_CLOEXEC, 0);
        if (fd < 0 && Check.LastErrno == Errno.ENOENT)
        {
            fixed (byte* p = Encoding.UTF8.GetBytes(path + '\0'))
            {
                Check.Result(Libc.mknodat(Libc.AT_FDCWD, p, Libc.S_IFCHR | 0x180, (major << 8) | minor), "mknod", path);
            }

            fd = Libc.open(path, flags | Libc.O_CLOEXEC, 0);
        }

        return SafeFd.From(fd, "open", path);
    }
}
