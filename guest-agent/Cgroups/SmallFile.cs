using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Cgroups;

/// <summary>Reads and writes of the small text files of procfs, sysfs and cgroup2, in the fewest system calls.</summary>
public static unsafe class SmallFile
{
    /// <summary>Writes <paramref name="value"/> by one write(2).</summary>
    /// <exception cref="LinuxException">The file does not exist, or the kernel refuses the value.</exception>
    public static void Write(SafeFd? directory, string path, string value)
    {
        ArgumentNullException.ThrowIfNull(value);
        int at = directory?.Value ?? Libc.AT_FDCWD;
        using SafeFd fd = SafeFd.From(Libc.openat(at, path, Libc.O_WRONLY | Libc.O_CLOEXEC, 0), "open", path);
        fixed (byte* p = Encoding.UTF8.GetBytes(value + '\0'))
        {
            nint n;
            do
            {
                n = Libc.write(fd.Value, p, (nuint)Encoding.UTF8.GetByteCount(value));
            }
            while (Check.Retry(n));
            Check.Result(n, $"write \"{value}\" to", path);
        }
    }

    /// <summary>The file's text, at most <paramref name="limit"/> bytes of it; null when there is none.</summary>
    /// <exception cref="LinuxException">The file cannot be read.</exception>
    public static string? TryRead(SafeFd? directory, string path, int limit = 64 << 10)
    {
        int at = directory?.Value ?? Libc.AT_FDCWD;
        int raw = Libc.openat(at, path, Libc.O_RDONLY | Libc.O_CLOEXEC, 0);
        if (raw < 0)
        {
            if (Check.LastErrno == Errno.ENOENT)
            {
                return null;
            }

            Check.Throw("open", path);
        }

        using SafeFd fd = new(raw);
        byte[] buffer = new byte[Math.Min(limit, 4096)];
        int length = 0;
        while (true)
        {
            nint n;
            fixed (byte* p = buffer)
            {
                n = Libc.read(fd.Value, p + length, (nuint)(buffer.Length - length));
            }

            if (Check.Retry(n))
            {
                continue;
            }

            // Some statistics cannot be read in some states (EOPNOTSUPP of a disabled pressure file).
            length += (int)Check.Result(n, "read", path);
            if (n == 0 || length == limit)
            {
                return Encoding.UTF8.GetString(buffer, 0, length);
            }

            if (length == buffer.Length)
            {
                Array.Resize(ref buffer, Math.Min(limit, buffer.Length * 4));
            }
        }
    }
}
