using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.Vm;

/// <summary>What kind of file a descriptor is of.</summary>
internal static unsafe class FileType
{
    /// <summary>Type, mode, owner, device number and mount of the file behind a descriptor.</summary>
    /// <exception cref="LinuxException">The file system does not answer.</exception>
    internal static Libc.statx_t Describe(SafeFd fd, string path)
    {
        Libc.statx_t stat;
        byte empty = 0;
        Check.Result(Libc.statx(fd.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_BASIC_STATS | Libc.STATX_MNT_ID, &stat), "statx", path);
        return stat;
    }

    /// <summary>S_IFDIR, S_IFREG...; 0 when it cannot be told.</summary>
    internal static uint Of(SafeFd fd)
    {
        Libc.statx_t stat;
        byte empty = 0;
        return Libc.statx(fd.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_TYPE, &stat) < 0 ? 0 : stat.stx_mode & Libc.S_IFMT;
    }
}
