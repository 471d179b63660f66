using System.Text;
using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>Which file something is, by the number of its inode and the device of its file system (statx(2)). A number may be used again once its file is gone.</summary>
/// <param name="Inode">Number of the inode.</param>
/// <param name="Major">Major number of the device.</param>
/// <param name="Minor">Minor number of the device.</param>
public readonly record struct FileIdentity(ulong Inode, uint Major, uint Minor)
{
    /// <summary>The identity that a statx(2) with STATX_INO told.</summary>
    public static FileIdentity Of(in Libc.statx_t stat) => new(stat.stx_ino, stat.stx_dev_major, stat.stx_dev_minor);

    /// <summary>Of an open file.</summary>
    /// <exception cref="LinuxException">It cannot be asked.</exception>
    public static unsafe FileIdentity Of(SafeFd file)
    {
        ArgumentNullException.ThrowIfNull(file);
        byte empty = 0;
        Libc.statx_t stat;
        Check.Result(Libc.statx(file.Value, &empty, Libc.AT_EMPTY_PATH, Libc.STATX_INO, &stat), "statx");
        return Of(stat);
    }

    /// <summary>Of what a path leads to; null, with errno set, when that cannot be reached.</summary>
    public static unsafe FileIdentity? Find(string path)
    {
        Libc.statx_t stat;
        fixed (byte* p = Encoding.UTF8.GetBytes(path + "\0"))
        {
            return Libc.statx(Libc.AT_FDCWD, p, 0, Libc.STATX_INO, &stat) == 0 ? Of(stat) : null;
        }
    }
}
