using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>Anonymous files in memory (memfd_create(2)).</summary>
public static unsafe class MemoryFile
{
    private const int CopyBlock = 256 << 10;

    /// <summary>A copy of a whole file, open for reading only; close-on-exec.</summary>
    /// <param name="source">The file, from its start.</param>
    /// <param name="name">Shown in /proc.</param>
    /// <exception cref="LinuxException">The file cannot be read, or no memory is free.</exception>
    public static SafeFd CopyOf(SafeFd source, string name)
    {
        ArgumentNullException.ThrowIfNull(source);
        using SafeFd copy = SafeFd.From(Libc.memfd_create(name, Libc.MFD_CLOEXEC), "memfd_create");
        byte[] buffer = GC.AllocateUninitializedArray<byte>(CopyBlock);
        fixed (byte* p = buffer)
        {
            for (long at = 0; ;)
            {
                nint n = Libc.pread(source.Value, p, CopyBlock, at);
                if (Check.Retry(n))
                {
                    continue;
                }

                if (Check.Result(n, "read", name) == 0)
                {
                    break;
                }

                HostFile.WriteAll(copy, buffer.AsSpan(0, (int)n), name);
                at += n;
            }
        }

        string path = string.Create(System.Globalization.CultureInfo.InvariantCulture, $"/proc/self/fd/{copy.Value}");
        return SafeFd.From(Libc.open(path, Libc.O_RDONLY | Libc.O_CLOEXEC, 0), "open", path);
    }

    /// <summary>A file that holds <paramref name="data"/>, to be read from its start; close-on-exec.</summary>
    /// <param name="name">Shown in /proc.</param>
    /// <param name="data">The content.</param>
    /// <exception cref="LinuxException">No descriptor or memory is free.</exception>
    public static SafeFd Create(string name, ReadOnlySpan<byte> data) => Create(name, data, Libc.MFD_CLOEXEC);

    /// <summary>As <see cref="Create(string, ReadOnlySpan{byte})"/>, and nothing can change the file any more.</summary>
    /// <exception cref="LinuxException">No descriptor or memory is free.</exception>
    public static SafeFd CreateSealed(string name, ReadOnlySpan<byte> data)
    {
        SafeFd fd = Create(name, data, Libc.MFD_CLOEXEC | Libc.MFD_ALLOW_SEALING);
        return Seal(fd, Libc.F_SEAL_SEAL | Libc.F_SEAL_SHRINK | Libc.F_SEAL_GROW | Libc.F_SEAL_WRITE, name);
    }

    /// <summary>A file of <paramref name="size"/> zero bytes whose size is fixed; close-on-exec.</summary>
    /// <exception cref="LinuxException">No descriptor or memory is free.</exception>
    public static SafeFd CreateSized(string name, long size)
    {
        SafeFd fd = SafeFd.From(Libc.memfd_create(name, Libc.MFD_CLOEXEC | Libc.MFD_ALLOW_SEALING), "memfd_create");
        if (Libc.ftruncate(fd.Value, size) < 0)
        {
            Errno errno = Check.LastErrno;
            fd.Dispose();
            throw new LinuxException(errno, "ftruncate", name);
        }

        return Seal(fd, Libc.F_SEAL_SEAL | Libc.F_SEAL_SHRINK | Libc.F_SEAL_GROW, name);
    }

    private static SafeFd Seal(SafeFd fd, int seals, string name)
    {
        if (Libc.fcntl(fd.Value, Libc.F_ADD_SEALS, seals) < 0)
        {
            Errno errno = Check.LastErrno;
            fd.Dispose();
            throw new LinuxException(errno, "fcntl(F_ADD_SEALS)", name);
        }

        return fd;
    }

    private static SafeFd Create(string name, ReadOnlySpan<byte> data, uint flags)
    {
        SafeFd fd = SafeFd.From(Libc.memfd_create(name, flags), "memfd_create");
        try
        {
            HostFile.WriteAll(fd, data, name);
            Check.Result((nint)Libc.lseek(fd.Value, 0, Libc.SEEK_SET), "lseek", name);
            return fd;
        }
        catch
        {
            fd.Dispose();
            throw;
        }
    }
}
