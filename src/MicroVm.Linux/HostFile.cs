using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>Whole small files, with errors that carry the error number.</summary>
public static unsafe class HostFile
{
    private const int SmallFile = 4096;

    /// <summary>Reads a file of at most <paramref name="maxBytes"/>.</summary>
    /// <exception cref="LinuxException">It cannot be opened or read, or is larger (EFBIG).</exception>
    public static byte[] ReadAllBytes(string path, int maxBytes)
    {
        using SafeFd fd = SafeFd.From(Libc.open(path, Libc.O_RDONLY | Libc.O_CLOEXEC, 0), "open", path);
        return ReadToEnd(fd, maxBytes, path);
    }

    /// <summary>The same without exceptions, for files that may well not be there: null, and why.</summary>
    public static byte[]? TryReadAllBytes(string path, int maxBytes, out Errno errno)
    {
        using SafeFd fd = new(Libc.open(path, Libc.O_RDONLY | Libc.O_CLOEXEC, 0));
        errno = fd.IsInvalid ? Check.LastErrno : Errno.OK;
        return fd.IsInvalid ? null : TryReadToEnd(fd, maxBytes, out errno);
    }

    /// <summary>Reads at most <paramref name="maxBytes"/> from a descriptor, up to its end.</summary>
    /// <exception cref="LinuxException">A read failed, or there is more (EFBIG).</exception>
    public static byte[] ReadToEnd(SafeFd fd, int maxBytes, string path) =>
        TryReadToEnd(fd, maxBytes, out Errno errno) ?? throw new LinuxException(errno, "read", path);

    private static byte[]? TryReadToEnd(SafeFd fd, int maxBytes, out Errno errno)
    {
        ArgumentNullException.ThrowIfNull(fd);

        // Most files are small: these take no more memory than they fill.
        Span<byte> buffer = stackalloc byte[Math.Min(SmallFile, maxBytes + 1)];
        int length = 0;
        while (true)
        {
            if (length == buffer.Length)
            {
                byte[] larger = GC.AllocateUninitializedArray<byte>((int)Math.Min((long)buffer.Length * 4, (long)maxBytes + 1));
                buffer.CopyTo(larger);
                buffer = larger;
            }

            int n;
            fixed (byte* p = buffer)
            {
                n = (int)Libc.read(fd.Value, p + length, (nuint)(buffer.Length - length));
            }

            if (Check.Retry(n))
            {
                continue;
            }

            if (n == 0)
            {
                errno = Errno.OK;
                return buffer[..length].ToArray();
            }

            length += Math.Max(n, 0);
            if (n < 0 || length > maxBytes)
            {
                errno = n < 0 ? Check.LastErrno : Errno.EFBIG;
                return null;
            }
        }
    }

    /// <summary>Writes all of <paramref name="data"/> at a place of a file, whose own position stays.</summary>
    /// <param name="fd">The file.</param>
    /// <param name="data">What to write.</param>
    /// <param name="offset">First byte in the file.</param>
    /// <param name="target">For the error.</param>
    /// <exception cref="LinuxException">It cannot be written.</exception>
    public static void WriteAllAt(SafeFd fd, ReadOnlySpan<byte> data, long offset, string target)
    {
        ArgumentNullException.ThrowIfNull(fd);
        fixed (byte* p = data)
        {
            for (int done = 0; done < data.Length;)
            {
                nint n = Libc.pwrite(fd.Value, p + done, (nuint)(data.Length - done), offset + done);
                if (n > 0)
                {
                    done += (int)n;
                }
                else if (!Check.Retry(n))
                {
                    Check.Throw("pwrite", target);
                }
            }
        }
    }

    /// <summary>Writes all of <paramref name="data"/> to a descriptor.</summary>
    /// <exception cref="LinuxException">A write failed.</exception>
    public static void WriteAll(SafeFd fd, ReadOnlySpan<byte> data, string target)
    {
        ArgumentNullException.ThrowIfNull(fd);
        while (!data.IsEmpty)
        {
            nint n;
            fixed (byte* p = data)
            {
                n = Libc.write(fd.Value, p, (nuint)data.Length);
            }

            if (!Check.Retry(n))
            {
                data = data[(int)Check.Result(n, "write", target)..];
            }
        }
    }

    /// <summary>
    /// Replaces a file by rename: a reader sees the old or the new content, never a part. <paramref name="mode"/> holds
    /// the permission bits of the new file. No link is followed: neither one at <paramref name="path"/>, which is replaced, nor one
    /// at the name that the file has meanwhile (".NAME"), which is removed.
    /// </summary>
    /// <exception cref="LinuxException">The folder cannot be written; nothing is left there then.</exception>
    public static void Replace(string path, ReadOnlySpan<byte> data, uint mode)
    {
        string temporary = Path.Combine(Path.GetDirectoryName(path) ?? "", "." + Path.GetFileName(path));
        try
        {
            using (SafeFd fd = CreateNew(temporary, mode))
            {
                WriteAll(fd, data, temporary);
            }

            Check.Result(Libc.rename(temporary, path), "rename", path);
        }
        catch (LinuxException)
        {
            _ = Libc.unlink(temporary);
            throw;
        }
    }

    /// <summary>Makes a file that was not there. What a crash left at its name, or somebody else put there, is removed first.</summary>
    private static SafeFd CreateNew(string path, uint mode)
    {
        const int flags = Libc.O_WRONLY | Libc.O_CREAT | Libc.O_EXCL | Libc.O_NOFOLLOW | Libc.O_CLOEXEC;
        int fd = Libc.open(path, flags, mode);
        if (fd < 0 && Check.LastErrno == Errno.EEXIST)
        {
            // A folder of that name stays.
            fd = Libc.unlink(path) == 0 ? Libc.open(path, flags, mode) : throw new LinuxException(Errno.EEXIST, "open", path);
        }

        return SafeFd.From(fd, "open", path);
    }

    /// <summary>Makes a folder and the missing ones above it. One that exists is no error.</summary>
    /// <exception cref="LinuxException">A folder cannot be made.</exception>
    public static void MakeFolder(string path, uint mode)
    {
        if (Libc.mkdir(path, mode) == 0)
        {
            return;
        }

        switch (Check.LastErrno)
        {
            case Errno.EEXIST when Directory.Exists(path):
                return;
            case Errno.ENOENT when Path.GetDirectoryName(path) is { Length: > 0 } above:
                MakeFolder(above, mode);
                if (Libc.mkdir(path, mode) == 0 || (Check.LastErrno == Errno.EEXIST && Directory.Exists(path)))
                {
                    return;
                }

                break;
        }

        Check.Throw("mkdir", path);
    }
}
