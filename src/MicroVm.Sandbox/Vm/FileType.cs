using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.Vm;

/// <summary>What kind of file a descriptor is of.</summary>
internal static unsafe class FileType
{
    /// <summary>S_IFDIR, S_IFREG...; 0 when it cannot be told.</summary>
    internal static uint Of(SafeFd fd)
    {
        Libc.statx_t stat;
        byte empty = 0;
        return Libc.statx(fd.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_TYPE, &stat) < 0 ? 0 : stat.stx_mode & Libc.S_IFMT;
    }
}
