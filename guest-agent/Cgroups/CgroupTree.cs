using System.Text;
using MicroVm.Agent.Rootfs;
using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.Protocol.Agent;

namespace MicroVm.Agent.Cgroups;

/// <summary>The guest's cgroup v2 hierarchy.</summary>
public sealed unsafe class CgroupTree
{
    private readonly string _root;
    private readonly HashSet<string> _delegated = [];
    private string? _enable;

    /// <summary>The hierarchy mounted at <paramref name="root"/>.</summary>
    public CgroupTree(string root) => _root = root;

    /// <summary>Where the hierarchy is mounted.</summary>
    public string Root => _root;

    /// <summary>The controllers that the kernel has.</summary>
    /// <exception cref="LinuxException">The hierarchy cannot be read.</exception>
    public string[] Controllers() =>
        (SmallFile.TryRead(null, $"{_root}/cgroup.controllers") ?? "").Split((char[])[' ', '\n'], StringSplitOptions.RemoveEmptyEntries);

    /// <summary>Makes a cgroup, with every controller available in it, and writes its settings in order.</summary>
    /// <exception cref="SetupException">The path leaves the hierarchy, or the kernel refused something.</exception>
    public ContainerCgroup Create(string path, IEnumerable<CgroupSetting> settings)
    {
        string[] parts = Split(path);
        string at = _root;
        try
        {
            foreach (string part in parts)
            {
                Delegate(at);
                at += "/" + part;
                fixed (byte* p = Encoding.UTF8.GetBytes(at + '\0'))
                {
                    if (Libc.mkdirat(Libc.AT_FDCWD, p, 0x1ed) < 0 && Check.LastErrno != Errno.EEXIST)
                    {
                        Check.Throw("mkdir", at);
                    }
                }
            }

            ContainerCgroup cgroup = new(at, SafeFd.From(Libc.open(at, Libc.O_RDONLY | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0), "open", at));
            try
            {
                cgroup.Apply(settings);
                return cgroup;
            }
            catch
            {
                cgroup.Dispose();
                Remove(at);
                throw;
            }
        }
        catch (LinuxException e)
        {
            throw new SetupException($"unable to apply cgroup configuration: {e.Operation} {at}", e);
        }
    }

    /// <summary>Removes an empty cgroup and, beneath the root, what it contains. False: processes are in it still.</summary>
    /// <exception cref="LinuxException">Anything but EBUSY and ENOENT.</exception>
    public static bool Remove(string path)
    {
        if (TryRemoveOne(path))
        {
            return true;
        }

        // A container may have made cgroups of its own, as deep as it likes: no recursion.
        foreach (string inner in Directory.EnumerateDirectories(path, "*", SearchOption.AllDirectories).OrderByDescending(d => d.Length))
        {
            _ = TryRemoveOne(inner);
        }

        return TryRemoveOne(path);
    }

    private static bool TryRemoveOne(string path)
    {
        fixed (byte* p = Encoding.UTF8.GetBytes(path + '\0'))
        {
            if (Libc.unlinkat(Libc.AT_FDCWD, p, Libc.AT_REMOVEDIR) == 0 || Check.LastErrno == Errno.ENOENT)
            {
                return true;
            }
        }

        if (Check.LastErrno != Errno.EBUSY)
        {
            Check.Throw("rmdir", path);
        }

        return false;
    }

    private static string[] Split(string path)
    {
        string[] parts = path.Split('/', StringSplitOptions.RemoveEmptyEntries);
        if (parts.Length == 0 || parts.Any(p => p is "." or ".." || p.Contains('\0', StringComparison.Ordinal)))
        {
            throw new SetupException($"cgroup path \"{path}\" is empty or leaves the guest's hierarchy");
        }

        return parts;
    }

    private void Delegate(string path)
    {
        if (_delegated.Contains(path))
        {
            return;
        }

        _enable ??= string.Join(' ', Controllers().Select(c => "+" + c));
        if (_enable.Length > 0)
        {
            SmallFile.Write(null, $"{path}/cgroup.subtree_control", _enable);
        }

        _delegated.Add(path);
    }
}
