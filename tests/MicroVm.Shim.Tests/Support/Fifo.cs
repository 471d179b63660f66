using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Shim.Tests.Support;

/// <summary>FIFOs, as containerd's clients make them, and their reading.</summary>
internal static unsafe class Fifo
{
    internal static string Make(string path)
    {
        fixed (byte* p = Encoding.UTF8.GetBytes(path + "\0"))
        {
            Check.Result(Libc.mknodat(Libc.AT_FDCWD, p, Libc.S_IFIFO | 0b110_000_000, 0), "mknod", path);
        }

        return path;
    }

    internal static SafeFd OpenRead(string path) => SafeFd.From(Libc.open(path, Libc.O_RDONLY | Libc.O_NONBLOCK | Libc.O_CLOEXEC, 0), "open", path);

    internal static SafeFd OpenWrite(string path) => SafeFd.From(Libc.open(path, Libc.O_WRONLY | Libc.O_NONBLOCK | Libc.O_CLOEXEC, 0), "open", path);

    /// <summary>What is there now; null at the end of file.</summary>
    internal static string? ReadAvailable(SafeFd fd)
    {
        byte* buffer = stackalloc byte[4096];
        nint n = Libc.read(fd.Value, buffer, 4096);
        return n > 0 ? Encoding.UTF8.GetString(buffer, (int)n) : n == 0 ? null : "";
    }

    internal static void Write(SafeFd fd, string text) => HostFile.WriteAll(fd, Encoding.UTF8.GetBytes(text), "fifo");
}
