using MicroVm.Linux.Native;

namespace MicroVm.Linux;

/// <summary>Anonymous files in memory (memfd_create(2)).</summary>
public static class MemoryFile
{
    /// <summary>A file that holds <paramref name="data"/>, to be read from its start; close-on-exec.</summary>
    /// <param name="name">Shown in /proc.</param>
    /// <param name="data">The content.</param>
    /// <exception cref="LinuxException">No descriptor or memory is free.</exception>
    public static SafeFd Create(string name, ReadOnlySpan<byte> data)
    {
        SafeFd fd = SafeFd.From(Libc.memfd_create(name, Libc.MFD_CLOEXEC), "memfd_create");
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
