using System.Runtime.InteropServices;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Rootfs;

/// <summary>Copies what a tmpfs mount with tmpcopyup hides into the tmpfs: directories, files, symbolic links, their owners and modes.</summary>
public static unsafe class TreeCopy
{
    private const int MaxDepth = 128;

    /// <summary>Copies the contents of <paramref name="from"/> (O_PATH) into <paramref name="to"/> (O_PATH).</summary>
    /// <exception cref="LinuxException">A file cannot be read or made.</exception>
    public static void Copy(SafeFd from, SafeFd to) => Directory(from, to, 0);

    private static void Directory(SafeFd from, SafeFd to, int depth)
    {
        if (depth > MaxDepth)
        {
            throw new LinuxException(Errno.ELOOP, "tmpcopyup");
        }

        using SafeFd list = SafeFd.From(Libc.openat(from.Value, ".", Libc.O_RDONLY | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", "directory");
        FolderEntries.Read(list, name => Entry(from, to, name, depth));
    }

    private static void Entry(SafeFd from, SafeFd to, byte* name, int depth)
    {
        Libc.statx_t stat;
        Check.Result(Libc.statx(from.Value, name, Libc.AT_SYMLINK_NOFOLLOW, Libc.STATX_BASIC_STATS, &stat), "statx", Name(name));
        uint mode = stat.stx_mode & 0xfffu;
        switch (stat.stx_mode & Libc.S_IFMT)
        {
            case Libc.S_IFDIR:
                Check.Result(Libc.mkdirat(to.Value, name, 0x1c0), "mkdir", Name(name));
                using (SafeFd source = SafeFd.From(Libc.openat(from.Value, name, Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_NOFOLLOW | Libc.O_CLOEXEC, 0), "open", Name(name)))
                using (SafeFd target = SafeFd.From(Libc.openat(to.Value, name, Libc.O_PATH | Libc.O_DIRECTORY | Libc.O_NOFOLLOW | Libc.O_CLOEXEC, 0), "open", Name(name)))
                {
                    Directory(source, target, depth + 1);
                }

                break;
            case Libc.S_IFREG:
                CopyFile(from, to, name);
                break;
            case Libc.S_IFLNK:
                CopyLink(from, to, name);
                break;
            default:
                Check.Result(
                    Libc.mknodat(to.Value, name, stat.stx_mode, stat.stx_rdev_minor | ((ulong)stat.stx_rdev_major << 8)), "mknod", Name(name));
                break;
        }

        Check.Result(Libc.fchownat(to.Value, name, stat.stx_uid, stat.stx_gid, Libc.AT_SYMLINK_NOFOLLOW), "chown", Name(name));
        if ((stat.stx_mode & Libc.S_IFMT) != Libc.S_IFLNK)
        {
            Check.Result(Libc.fchmodat(to.Value, name, mode, 0), "chmod", Name(name));
        }
    }

    private static void CopyFile(SafeFd from, SafeFd to, byte* name)
    {
        using SafeFd source = SafeFd.From(Libc.openat(from.Value, name, Libc.O_RDONLY | Libc.O_NOFOLLOW | Libc.O_CLOEXEC, 0), "open", Name(name));
        using SafeFd target = SafeFd.From(
            Libc.openat(to.Value, name, Libc.O_WRONLY | Libc.O_CREAT | Libc.O_EXCL | Libc.O_CLOEXEC, 0x180), "create", Name(name));
        const int size = 64 << 10;
        byte* buffer = (byte*)NativeMemory.Alloc(size);
        try
        {
            nint n;
            while ((n = Check.Result(Libc.read(source.Value, buffer, size), "read", Name(name))) > 0)
            {
                for (nint done = 0; done < n;)
                {
                    done += Check.Result(Libc.write(target.Value, buffer + done, (nuint)(n - done)), "write", Name(name));
                }
            }
        }
        finally
        {
            NativeMemory.Free(buffer);
        }
    }

    private static void CopyLink(SafeFd from, SafeFd to, byte* name)
    {
        byte* target = stackalloc byte[4096];
        nint n = Check.Result(Libc.readlinkat(from.Value, name, target, 4095), "readlink", Name(name));
        target[n] = 0;
        Check.Result(Libc.symlinkat(target, to.Value, name), "symlink", Name(name));
    }

    private static string Name(byte* name) => Marshal.PtrToStringUTF8((nint)name)!;
}
