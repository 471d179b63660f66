using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VmmControl;

namespace MicroVm.Vmm.Machine;

/// <summary>Turns the configuration's <see cref="FileReference"/>s into descriptors, which the caller then owns.</summary>
public static class FileOpener
{
    /// <summary>Opens a path, or takes over an inherited descriptor.</summary>
    /// <param name="file">The reference.</param>
    /// <param name="flags">O_RDONLY... for a path; an inherited descriptor is as it is.</param>
    /// <param name="setting">The configuration's field, for messages.</param>
    /// <exception cref="ConfigException">Neither or both are given, the path cannot be opened, or the descriptor is not open.</exception>
    public static SafeFd Open(FileReference file, int flags, string setting)
    {
        ArgumentNullException.ThrowIfNull(file);
        CheckReference(file, setting);
        if (file.Path is { } path)
        {
            int opened = Libc.open(path, flags | Libc.O_CLOEXEC | Libc.O_NOCTTY, 0x180);
            return opened >= 0
                ? new SafeFd(opened)
                : throw new ConfigException($"{setting}: cannot open {path}: {LinuxException.Text(Check.LastErrno)}");
        }

        int fd = file.Fd!.Value;
        return Libc.fcntl(fd, Libc.F_SETFD, Libc.FD_CLOEXEC) >= 0
            ? new SafeFd(fd)
            : throw new ConfigException($"{setting}: descriptor {fd} is not open; the process that starts the VMM must pass it on");
    }

    /// <summary>What messages call the file.</summary>
    public static string NameOf(FileReference file, string setting)
    {
        ArgumentNullException.ThrowIfNull(file);
        return file.Path is { } path ? $"{setting} {path}" : $"{setting} (descriptor {file.Fd})";
    }

    /// <summary>Checks that exactly one of path and descriptor is given, and that the descriptor can be one.</summary>
    /// <exception cref="ConfigException">It is not so.</exception>
    public static void CheckReference(FileReference file, string setting)
    {
        ArgumentNullException.ThrowIfNull(file);
        if (file.Path is null == file.Fd is null)
        {
            throw new ConfigException($"{setting}: give either \"fd\" or \"path\"");
        }

        if (file.Fd is < 0 || file.Path is { Length: 0 })
        {
            throw new ConfigException(file.Fd is null ? $"{setting}: the path is empty" : $"{setting}: {file.Fd} is not a descriptor");
        }
    }
}
