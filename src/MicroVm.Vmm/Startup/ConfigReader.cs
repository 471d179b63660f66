using System.Text.Json;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Vmm.Control;
using MicroVm.Vmm.Machine;
using MicroVm.VmmControl;
using MicroVm.VmmControl.Reading;

namespace MicroVm.Vmm.Startup;

/// <summary>Reads the configuration.</summary>
public static class ConfigReader
{
    // A bundle's config.json may have 16 MiB, and an export takes no more room here than its mount takes there.
    private const int MaxBytes = 16 << 20;

    /// <summary>Reads and parses; a descriptor is closed afterwards.</summary>
    /// <exception cref="ConfigException">It cannot be read, is too large, or is not a valid configuration.</exception>
    public static VmmConfig Read(CommandLineOptions options)
    {
        ArgumentNullException.ThrowIfNull(options);
        string name = options.ConfigPath ?? $"configuration on descriptor {options.ConfigFd}";
        using SafeFd fd = options.ConfigFd is { } given ? new SafeFd(given) : Open(options.ConfigPath!);
        ReadOnlySpan<byte> json = ReadAll(fd, name);
        try
        {
            return ConfigDocument.Config.Read(json) ?? throw new ConfigException($"{name}: is null, not a JSON object");
        }
        catch (JsonException e)
        {
            throw new ConfigException($"{name}: {JsonErrors.Describe(e)}");
        }
    }

    private static SafeFd Open(string path)
    {
        int fd = Libc.open(path, Libc.O_RDONLY | Libc.O_CLOEXEC | Libc.O_NOCTTY, 0);
        return fd >= 0 ? new SafeFd(fd) : throw new ConfigException($"cannot read {path}: {LinuxException.Text(Check.LastErrno)}");
    }

    private static unsafe ReadOnlySpan<byte> ReadAll(SafeFd fd, string name)
    {
        // A memfd's writer leaves the offset at its end; a pipe has none.
        _ = Libc.lseek(fd.Value, 0, Libc.SEEK_SET);
        byte[] buffer = new byte[4096];
        int count = 0;
        while (true)
        {
            if (count == buffer.Length)
            {
                if (count >= MaxBytes)
                {
                    throw new ConfigException($"{name}: is larger than {MaxBytes} bytes");
                }

                Array.Resize(ref buffer, buffer.Length * 2);
            }

            nint n;
            fixed (byte* p = buffer)
            {
                n = Libc.read(fd.Value, p + count, (nuint)(buffer.Length - count));
            }

            if (n == 0)
            {
                return buffer.AsSpan(0, count);
            }

            if (n < 0 && Check.LastErrno != Errno.EINTR)
            {
                throw new ConfigException($"{name}: {LinuxException.Text(Check.LastErrno)}");
            }

            count += (int)Math.Max(n, 0);
        }
    }
}
