using System.Globalization;
using System.Runtime.InteropServices;
using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Cgroups;

/// <summary>One container's cgroup. Owns a descriptor of its directory; the directory itself is removed by <see cref="CgroupTree.Remove"/>.</summary>
public sealed unsafe class ContainerCgroup : IDisposable
{
    // What statistics are made of; a file is absent when its controller is.
    private static readonly string[] StatFiles =
    [
        "cpu.stat", "cpu.max", "memory.current", "memory.peak", "memory.max", "memory.stat", "memory.events", "memory.swap.current",
        "memory.swap.max", "pids.current", "pids.max", "io.stat", "cpuset.cpus.effective", "hugetlb.2MB.current", "hugetlb.2MB.max",
        "hugetlb.2MB.events", "rdma.current", "rdma.max", "cpu.pressure", "memory.pressure", "io.pressure",
    ];

    internal ContainerCgroup(string path, SafeFd directory)
    {
        Path = path;
        Directory = directory;
    }

    /// <summary>Absolute path of the directory.</summary>
    public string Path { get; }

    /// <summary>The directory; clone3's CLONE_INTO_CGROUP takes it.</summary>
    public SafeFd Directory { get; }

    /// <summary>Writes settings in order.</summary>
    /// <exception cref="SetupException">A file is missing, which names its controller, or a value is refused.</exception>
    public void Apply(IEnumerable<CgroupSetting> settings)
    {
        ArgumentNullException.ThrowIfNull(settings);
        foreach (CgroupSetting setting in settings)
        {
            if (setting.File.Contains('/', StringComparison.Ordinal) || setting.File is "" or "." or "..")
            {
                throw new SetupException($"\"{setting.File}\" is no cgroup file");
            }

            try
            {
                SmallFile.Write(Directory, setting.File, setting.Value);
            }
            catch (LinuxException e) when (e.Errno == Errno.ENOENT)
            {
                if (setting.Optional)
                {
                    continue;
                }

                string controller = setting.File.Split('.')[0];
                throw new SetupException($"cannot set {setting.File}: the guest kernel has no cgroup controller \"{controller}\", or lacks this file");
            }
            catch (LinuxException e)
            {
                throw new SetupException($"failed to write \"{setting.Value}\" to cgroup file {setting.File}", e);
            }
        }
    }

    /// <summary>A cgroup of the container's own making, below this one.</summary>
    /// <param name="path">This cgroup's path below the hierarchy's root.</param>
    /// <param name="membership">/proc/PID/cgroup of a process in the inner one.</param>
    /// <exception cref="LinuxException">It is gone.</exception>
    public ContainerCgroup Inner(string path, string? membership)
    {
        string own = $"0::/{(path ?? "").Trim('/')}/", line = (membership ?? "").TrimEnd('\n');
        string inner = line.StartsWith(own, StringComparison.Ordinal) ? line[own.Length..] : ".";
        return new ContainerCgroup(
            $"{Path}/{inner}", SafeFd.From(Libc.openat(Directory.Value, inner, Libc.O_RDONLY | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", inner));
    }

    /// <summary>A cgroup of the container's own making, by its path below this one.</summary>
    /// <exception cref="SetupException">There is none.</exception>
    public ContainerCgroup Below(string path)
    {
        SafeFd directory = new(Libc.openat(Directory.Value, path, Libc.O_RDONLY | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0));
        return directory.IsInvalid
            ? throw new SetupException($"error adding pid to cgroups: openat /sys/fs/cgroup/{path}/cgroup.procs", new LinuxException(Check.LastErrno, "open"))
            : new ContainerCgroup($"{Path}/{path}", directory);
    }

    /// <summary>Gives the cgroup to a user, who may then make cgroups below it (cgroup v2, "Delegation").</summary>
    /// <exception cref="SetupException">The kernel refused.</exception>
    public void Delegate(uint owner)
    {
        // The kernel's own list: /sys/kernel/cgroup/delegate.
        foreach (string file in (ReadOnlySpan<string>)["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "memory.oom.group", "memory.reclaim"])
        {
            fixed (byte* path = System.Text.Encoding.UTF8.GetBytes(file + '\0'))
            {
                int flags = file.Length == 0 ? Libc.AT_EMPTY_PATH : Libc.AT_SYMLINK_NOFOLLOW;
                if (Libc.fchownat(Directory.Value, path, owner, uint.MaxValue, flags) < 0 && Check.LastErrno != Errno.ENOENT)
                {
                    throw new SetupException($"chown of cgroup {Path}", new LinuxException(Check.LastErrno, "chown"));
                }
            }
        }
    }

    /// <summary>Refuses limits that are below what is used already, in runc's words (<c>checkBeforeUpdate</c>).</summary>
    /// <exception cref="SetupException">As much is in use.</exception>
    public void RefuseInUse(long memory, long memoryAndSwap)
    {
        if ((memory > 0 || memoryAndSwap > 0)
            && ulong.TryParse((SmallFile.TryRead(Directory, "memory.current") ?? "").Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out ulong used))
        {
            string what = memoryAndSwap > 0 && (ulong)memoryAndSwap <= used ? $"memory+swap limit {memoryAndSwap}"
                : memory > 0 && (ulong)memory <= used ? $"memory limit {memory}" : "";
            if (what.Length > 0)
            {
                throw new SetupException($"rejecting {what} <= usage {used}");
            }
        }
    }

    /// <summary>
    /// As cgroups of version 1 have it: memory beyond a new limit is reclaimed, and a limit below what is left in use is refused. In version 2
    /// the kernel would kill processes until it holds.
    /// </summary>
    /// <param name="settings">What is to be set; the memory limit is among it, or nothing is done.</param>
    /// <exception cref="SetupException">As much is in use; runc's words.</exception>
    public void ReclaimBeyond(IEnumerable<CgroupSetting> settings)
    {
        ArgumentNullException.ThrowIfNull(settings);
        if (!long.TryParse(settings.LastOrDefault(s => s.File == "memory.max")?.Value, NumberStyles.None, CultureInfo.InvariantCulture, out long limit) || InUse() <= limit)
        {
            return;
        }

        try
        {
            SmallFile.Write(Directory, "memory.reclaim", (InUse() - limit).ToString(CultureInfo.InvariantCulture));
        }
        catch (LinuxException)
        {
            // Less could be reclaimed, or the kernel is older than 5.19: what is in use now counts.
        }

        if (InUse() is var used && used > limit)
        {
            throw new SetupException($"unable to set memory limit to {limit} (current usage: {used}, peak usage: {Number("memory.peak")})");
        }
    }

    private long InUse() => Number("memory.current");

    private long Number(string file) =>
        long.TryParse((SmallFile.TryRead(Directory, file) ?? "").Trim(), NumberStyles.None, CultureInfo.InvariantCulture, out long value) ? value : 0;

    /// <summary>Attaches a device filter (BPF_PROG_TYPE_CGROUP_DEVICE instructions, 8 bytes each).</summary>
    /// <exception cref="SetupException">The verifier or the kernel refused it.</exception>
    public void AttachDeviceFilter(ReadOnlySpan<byte> instructions)
    {
        if (instructions.IsEmpty)
        {
            return;
        }

        try
        {
            using SafeFd program = BpfProgram.Load(Libc.BPF_PROG_TYPE_CGROUP_DEVICE, 0, MemoryMarshal.Cast<byte, ulong>(instructions));
            uint* attr = stackalloc uint[4];
            (attr[0], attr[1], attr[2], attr[3]) = ((uint)Directory.Value, (uint)program.Value, Libc.BPF_CGROUP_DEVICE, Libc.BPF_F_ALLOW_MULTI);
            Check.Result(Libc.bpf(Libc.BPF_PROG_ATTACH, attr, sizeof(uint) * 4), "bpf(BPF_PROG_ATTACH)");
        }
        catch (LinuxException e)
        {
            throw new SetupException("giving the container its device filter", e);
        }
    }

    /// <summary>Freezes or thaws every process.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void Freeze(bool frozen) => SmallFile.Write(Directory, "cgroup.freeze", frozen ? "1" : "0");

    /// <summary>True once every process has stopped (cgroup.events).</summary>
    public bool IsFrozen => Event("cgroup.events", "frozen") == 1;

    /// <summary>Kills every process, in descendants too.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void Kill() => SmallFile.Write(Directory, "cgroup.kill", "1");

    /// <summary>How many times the OOM killer took a process of this cgroup.</summary>
    public long OomKills => Event("memory.events", "oom_kill");

    /// <summary>The processes, those of descendants too, in the agent's PID namespace.</summary>
    /// <exception cref="LinuxException">The cgroup is gone.</exception>
    public List<int> Processes()
    {
        // How deep cgroups are is the container's to say: no recursion.
        List<int> pids = [];
        foreach (string path in System.IO.Directory.EnumerateDirectories(Path, "*", SearchOption.AllDirectories).Prepend(Path))
        {
            foreach (string line in (SmallFile.TryRead(null, path + "/cgroup.procs", 1 << 20) ?? "").Split('\n', StringSplitOptions.RemoveEmptyEntries))
            {
                pids.Add(int.Parse(line, CultureInfo.InvariantCulture));
            }
        }

        return pids;
    }

    /// <summary>The statistics files that exist, by name.</summary>
    public void ReadStatistics(IDictionary<string, string> files)
    {
        ArgumentNullException.ThrowIfNull(files);
        foreach (string file in StatFiles)
        {
            try
            {
                if (SmallFile.TryRead(Directory, file) is { } text)
                {
                    files[file] = text;
                }
            }
            catch (LinuxException)
            {
                // A pressure file of a kernel that was started without PSI opens and cannot be read: there is no figure.
                continue;
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose() => Directory.Dispose();

    private long Event(string file, string name)
    {
        foreach (string line in (SmallFile.TryRead(Directory, file) ?? "").Split('\n'))
        {
            if (line.Length > name.Length && line.StartsWith(name, StringComparison.Ordinal) && line[name.Length] == ' ')
            {
                return long.Parse(line.AsSpan(name.Length + 1), CultureInfo.InvariantCulture);
            }
        }

        return 0;
    }
}
