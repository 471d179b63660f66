using System.Globalization;
using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.HostCgroups;

/// <summary>
/// The container's cgroup on the host, in every hierarchy: its proxy processes and its VMM are there, and so is what they use.
/// </summary>
/// <param name="Folders">Folder by controllers: "cpu,cpuacct", "name=systemd"; "" is version 2.</param>
internal sealed record HostCgroup(SortedDictionary<string, string> Folders)
{
    private const uint Mode = 0b111_101_101;
    private const int RemoveAttempts = 100, MaxFile = 1 << 20;

    /// <summary>Where version 2 is mounted; null when it is not.</summary>
    internal string? UnifiedMount { get; init; }

    /// <summary>The cgroup of a container, of which nothing is made yet, and the one that this process is in.</summary>
    /// <exception cref="Oci.SpecException">The path is malformed.</exception>
    internal static (HostCgroup Container, HostCgroup Own) Of(string? cgroupsPath, string id, bool systemd)
    {
        IReadOnlyList<CgroupHierarchy> hierarchies = CgroupHierarchy.Find();
        return (In(hierarchies, h => CgroupPath.Folder(h, cgroupsPath, id, systemd)), In(hierarchies, CgroupPath.OwnFolder));
    }

    /// <summary>Refuses a cgroup that is frozen, or beneath a frozen one, where nothing that joins it would run: in runc's words.</summary>
    /// <exception cref="SandboxException">It is frozen.</exception>
    internal void RefuseFrozen()
    {
        if (IsFrozen())
        {
            throw new SandboxException("container's cgroup unexpectedly frozen");
        }
    }

    /// <summary>Warns of a cgroup that has processes already, in runc's words.</summary>
    internal void WarnOfProcesses(Action<string> warn)
    {
        int processes = (TryRead("devices", "cgroup.procs", "cgroup.procs") ?? "").Split('\n', StringSplitOptions.RemoveEmptyEntries).Length;
        if (processes > 0)
        {
            warn($"container's cgroup is not empty: {processes} process(es) found");
        }
    }

    /// <summary>Whether it is frozen, or would be: the nearest cgroup above it that exists says so.</summary>
    internal bool IsFrozen()
    {
        string freezer = Folders.Keys.FirstOrDefault(c => c.Split(',').Contains("freezer")) ?? "";
        bool v1 = freezer.Length > 0;
        if (!Folders.TryGetValue(freezer, out string? folder))
        {
            return false;
        }

        while (!Directory.Exists(folder))
        {
            if ((folder = Path.GetDirectoryName(folder)) is null)
            {
                return false;
            }
        }

        string file = v1 ? "freezer.state" : "cgroup.events";
        return File.Exists(Path.Combine(folder, file))
            && (v1 ? !Read(folder, file).StartsWith("THAWED", StringComparison.Ordinal) : Read(folder, file).Contains("frozen 1", StringComparison.Ordinal));
    }

    /// <summary>Whether a controller is in a hierarchy of version 1.</summary>
    internal bool HasVersion1(string controller) => Folders.Keys.Any(c => c.Split(',').Contains(controller));

    /// <summary>Makes the folders that are missing.</summary>
    /// <exception cref="SandboxException">One cannot be made.</exception>
    internal void Create()
    {
        foreach ((string controllers, string folder) in Folders)
        {
            try
            {
                HostFile.MakeFolder(folder, Mode);
                if (controllers.Length == 0)
                {
                    Delegate(folder, UnifiedMount!);
                }
                else if (controllers.Split(',').Contains("cpuset"))
                {
                    FillCpuset(folder);
                }
            }
            catch (LinuxException e)
            {
                // In a hybrid set-up version 2 has no controllers: without it nothing is missing.
                if (controllers.Length > 0 || Folders.Count == 1)
                {
                    throw new SandboxException($"the container's cgroup cannot be made: {e.Message}", e);
                }
            }
        }
    }

    /// <summary>
    /// Moves the calling thread there, and so what it starts from now on: unlike a process, a thread that moves itself waits for no
    /// other CPU (in version 1; where the kernel is older than 5.17 it does).
    /// </summary>
    /// <returns>The cgroup of version 2, to start a process in (CLONE_INTO_CGROUP); null when the host has none.</returns>
    /// <exception cref="SandboxException">The kernel refuses.</exception>
    internal SafeFd? JoinThread()
    {
        SafeFd? unified = null;
        foreach ((string controllers, string folder) in Folders)
        {
            try
            {
                if (controllers.Length == 0)
                {
                    unified = SafeFd.From(Libc.open(folder, Libc.O_RDONLY | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", folder);
                }
                else
                {
                    Write(folder, "tasks", "0");
                }
            }
            catch (LinuxException e)
            {
                Refused(controllers, e);
            }
        }

        return unified;
    }

    /// <summary>Moves this process there.</summary>
    /// <exception cref="SandboxException">The kernel refuses.</exception>
    internal void Join() => Move(Environment.ProcessId);

    /// <summary>Moves a process there; one that has ended is left where it is.</summary>
    /// <exception cref="SandboxException">The kernel refuses.</exception>
    internal void Move(int pid)
    {
        foreach ((string controllers, string folder) in Folders)
        {
            try
            {
                Write(folder, "cgroup.procs", pid.ToString(CultureInfo.InvariantCulture));
            }
            catch (LinuxException e) when (e.Errno == Errno.ESRCH)
            {
            }
            catch (LinuxException e)
            {
                Refused(controllers, e);
            }
        }
    }

    /// <summary>Writes a file of a controller: the first that exists of version 1's and version 2's.</summary>
    /// <returns>False when the host has neither.</returns>
    /// <exception cref="SandboxException">The kernel refuses the value.</exception>
    internal bool TryWrite(string controller, string v1File, string v1Value, string v2File, string v2Value)
    {
        (string? folder, string file, string value) = FolderOf(controller) is { } v1 ? (v1, v1File, v1Value) : (FolderOf(""), v2File, v2Value);
        if (folder is null || file.Length == 0 || !File.Exists(Path.Combine(folder, file)))
        {
            return false;
        }

        try
        {
            Write(folder, file, value);
            return true;
        }
        catch (LinuxException e)
        {
            throw new SandboxException($"failed to write \"{value}\": {e.Message}", e);
        }
    }

    /// <summary>Reads a file of a controller: the first that exists of version 1's and version 2's; null when the host has neither.</summary>
    internal string? TryRead(string controller, string v1File, string v2File)
    {
        (string? folder, string file) = FolderOf(controller) is { } v1 ? (v1, v1File) : (FolderOf(""), v2File);
        return folder is not null && File.Exists(Path.Combine(folder, file)) ? Read(folder, file) : null;
    }

    /// <summary>Removes the folders, once nothing runs there. A folder that cannot be removed stays, and is returned.</summary>
    /// <returns>The folders that stay.</returns>
    internal IReadOnlyList<string> Remove() => [.. Folders.Values.Where(f => !TryRemove(f))];

    /// <summary>A cgroup of the host's hierarchies, at the folder that <paramref name="folder"/> gives for each.</summary>
    internal static HostCgroup In(IReadOnlyList<CgroupHierarchy> hierarchies, Func<CgroupHierarchy, string> folder) => new(new SortedDictionary<string, string>(
        hierarchies.ToDictionary(h => string.Join(',', h.Controllers), folder), StringComparer.Ordinal))
    {
        UnifiedMount = hierarchies.FirstOrDefault(h => h.IsUnified)?.MountPoint,
    };

    // In a hybrid set-up version 2 has no controllers: without it nothing is missing.
    private void Refused(string controllers, LinuxException e)
    {
        if (controllers.Length > 0 || Folders.Count == 1)
        {
            throw new SandboxException($"the container's cgroup cannot be joined: {e.Message}", e);
        }
    }

    private static bool TryRemove(string folder)
    {
        // A process that has ended leaves its cgroup a moment later.
        for (int attempt = 0; attempt < RemoveAttempts; attempt++)
        {
            if (Libc.rmdir(folder) == 0 || Check.LastErrno == Errno.ENOENT)
            {
                return true;
            }

            if (Check.LastErrno != Errno.EBUSY)
            {
                return false;
            }

            foreach (string child in Directory.Exists(folder) ? Directory.EnumerateDirectories(folder) : [])
            {
                _ = TryRemove(child);
            }

            Thread.Sleep(10);
        }

        return false;
    }

    private string? FolderOf(string controller) =>
        Folders.FirstOrDefault(f => f.Key.Split(',').Contains(controller)) is { Value: { } folder } && Directory.Exists(folder) ? folder : null;

    /// <summary>Version 2: a controller works in a cgroup when every one above passes it on.</summary>
    private static void Delegate(string folder, string mount)
    {
        List<string> above = [];
        for (string? f = Path.GetDirectoryName(folder); f is not null && f.Length >= mount.Length; f = Path.GetDirectoryName(f))
        {
            above.Insert(0, f);
        }

        foreach (string parent in above)
        {
            string controllers = Encoding.ASCII.GetString(HostFile.ReadAllBytes(Path.Combine(parent, "cgroup.controllers"), MaxFile));
            foreach (string controller in controllers.Split([' ', '\n'], StringSplitOptions.RemoveEmptyEntries))
            {
                try
                {
                    Write(parent, "cgroup.subtree_control", "+" + controller);
                }
                catch (LinuxException)
                {
                    // One that holds processes passes only threaded controllers on. The guest keeps the limits in any case.
                }
            }
        }
    }

    /// <summary>Version 1: a new cpuset is empty, and takes no process until it has CPUs and nodes.</summary>
    private static void FillCpuset(string folder)
    {
        foreach (string file in (string[])["cpuset.cpus", "cpuset.mems"])
        {
            if (Read(folder, file).Length > 0)
            {
                continue;
            }

            string parent = Path.GetDirectoryName(folder)!;
            if (Read(parent, file).Length == 0)
            {
                FillCpuset(parent);
            }

            Write(folder, file, Read(parent, file));
        }
    }

    private static string Read(string folder, string file) =>
        Encoding.ASCII.GetString(HostFile.ReadAllBytes(Path.Combine(folder, file), MaxFile)).Trim();

    private static void Write(string folder, string file, string value)
    {
        string path = Path.Combine(folder, file);
        using SafeFd fd = SafeFd.From(Libc.open(path, Libc.O_WRONLY | Libc.O_CLOEXEC, 0), "open", path);
        HostFile.WriteAll(fd, Encoding.ASCII.GetBytes(value), path);
    }
}
