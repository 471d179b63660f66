using System.Globalization;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Sandbox.State;

namespace MicroVm.Sandbox.Proxies;

/// <summary>The proxy processes of a container's further processes: a file each, named by process id and start time.</summary>
internal static class ExecRecords
{
    private const string FolderName = "execs";

    /// <summary>Records this process; the result is for <see cref="Remove"/>.</summary>
    /// <exception cref="LinuxException">The file cannot be written.</exception>
    internal static string Add(string containerFolder)
    {
        string folder = Path.Combine(containerFolder, FolderName);

        // Not with the folders above it: the container may just have been deleted.
        if (Libc.mkdir(folder, 0b111_000_000) < 0 && Check.LastErrno != Errno.EEXIST)
        {
            Check.Throw("mkdir", folder);
        }

        ProcessIdentity self = ProcessIdentity.Current;
        string path = Path.Combine(folder, string.Create(CultureInfo.InvariantCulture, $"{self.Pid}-{self.StartTime}"));
        using SafeFd file = SafeFd.From(Libc.open(path, Libc.O_WRONLY | Libc.O_CREAT | Libc.O_CLOEXEC, 0b110_000_000), "open", path);
        return path;
    }

    /// <summary>Forgets a process; one whose container is gone is forgotten already.</summary>
    internal static void Remove(string path) => _ = Libc.unlink(path);

    /// <summary>Those that live.</summary>
    internal static IReadOnlyList<ProcessIdentity> Alive(string containerFolder)
    {
        string folder = Path.Combine(containerFolder, FolderName);
        List<ProcessIdentity> alive = [];
        if (!Directory.Exists(folder))
        {
            return alive;
        }

        foreach (string name in Directory.EnumerateFiles(folder).Select(Path.GetFileName).OfType<string>())
        {
            if (name.Split('-') is [var pid, var start]
                && int.TryParse(pid, NumberStyles.None, CultureInfo.InvariantCulture, out int number)
                && ulong.TryParse(start, NumberStyles.None, CultureInfo.InvariantCulture, out ulong time)
                && new ProcessIdentity(number, time) is var identity && identity.IsAlive())
            {
                alive.Add(identity);
            }
        }

        return alive;
    }
}
