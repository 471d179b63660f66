using MicroVm.Linux;
using MicroVm.Linux.Native;
using MicroVm.VirtioFs.HostFiles;

namespace MicroVm.VirtioFs.Events;

/// <summary>
/// The watches of an inotify instance for the inodes that the guest's processes watch. The kernel has one watch for an inode of
/// the host, which may be several of the guest's.
/// </summary>
/// <remarks>Not for several threads at once.</remarks>
internal sealed class HostWatches : IDisposable
{
    /// <summary>Most inodes that are watched at once; about 1 KiB of host kernel memory each.</summary>
    public const int Max = 4096;

    /// <summary>What is told: changes, and not that files are read, opened or closed without a change.</summary>
    public const uint Events =
        Libc.IN_MODIFY | Libc.IN_ATTRIB | Libc.IN_CLOSE_WRITE | Libc.IN_MOVED_FROM | Libc.IN_MOVED_TO | Libc.IN_CREATE
        | Libc.IN_DELETE | Libc.IN_DELETE_SELF | Libc.IN_MOVE_SELF;

    private readonly Dictionary<ulong, (int Watch, uint Mask)> _byNode = [];
    private readonly Dictionary<int, ulong[]> _byWatch = [];
    private readonly List<int> _stale = [];

    /// <summary>Makes an instance; without watches when the host's user has no instance left (fs.inotify.max_user_instances).</summary>
    public HostWatches()
    {
        int fd = Libc.inotify_init1(Libc.IN_CLOEXEC | Libc.IN_NONBLOCK);
        Fd = fd < 0 ? null : new SafeFd(fd);
    }

    /// <summary>The instance, readable when there are events; null when none could be had.</summary>
    public SafeFd? Fd { get; }

    /// <summary>How many inodes are watched.</summary>
    public int Count => _byNode.Count;

    /// <summary>The guest's inodes that are watched.</summary>
    public Dictionary<ulong, (int Watch, uint Mask)>.KeyCollection Nodes => _byNode.Keys;

    /// <summary>Watches an inode for what <paramref name="mask"/> says, instead of what was watched before.</summary>
    /// <param name="node">The guest's id of it.</param>
    /// <param name="fd">Its descriptor; the calling thread's working directory is /proc/self/fd.</param>
    /// <param name="mask">Of <see cref="Events"/>, not 0.</param>
    /// <returns>0, or a negative errno: ENOSPC beyond <see cref="Max"/> or the host's own limit.</returns>
    // Safe: the link has room for any descriptor's number; the kernel reads it only.
    public unsafe int Add(ulong node, int fd, uint mask)
    {
        if (Fd is null || (_byNode.Count >= Max && !_byNode.ContainsKey(node)))
        {
            return -(int)Errno.ENOSPC;
        }

        RemoveStale();
        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(fd, link);
        int watch = Libc.inotify_add_watch(Fd.Value, link, mask | Libc.IN_MASK_ADD);
        if (watch < 0)
        {
            return -(int)Check.LastErrno;
        }

        _byNode[node] = (watch, mask);
        ulong[] nodes = _byWatch.GetValueOrDefault(watch, []);
        if (!nodes.Contains(node))
        {
            _byWatch[watch] = [.. nodes, node];
        }

        return 0;
    }

    /// <summary>Whether two descriptors are of one inode: the kernel has one watch for an inode. False also where it cannot be found out.</summary>
    public bool AreOne(int first, int second)
    {
        int watch = Probe(first), other = Probe(second);
        DropUnused(watch);
        if (other != watch)
        {
            DropUnused(other);
        }

        return watch >= 0 && watch == other;
    }

    /// <summary>Watches an inode no more.</summary>
    public void Remove(ulong node)
    {
        if (!_byNode.Remove(node, out (int Watch, uint Mask) watched) || !_byWatch.TryGetValue(watched.Watch, out ulong[]? nodes))
        {
            return;
        }

        ulong[] left = Array.FindAll(nodes, n => n != node);
        if (left.Length > 0)
        {
            _byWatch[watched.Watch] = left;
            return;
        }

        _byWatch.Remove(watched.Watch);
        _ = Libc.inotify_rm_watch(Fd!.Value, watched.Watch);
    }

    /// <summary>Forgets a watch that the kernel has removed, with its inode or file system.</summary>
    public void Forget(int watch)
    {
        if (_byWatch.Remove(watch, out ulong[]? nodes))
        {
            Array.ForEach(nodes, n => _byNode.Remove(n));
        }
    }

    /// <summary>The guest's inodes that a watch is for.</summary>
    public ReadOnlySpan<ulong> NodesOf(int watch) => _byWatch.TryGetValue(watch, out ulong[]? nodes) ? nodes : [];

    /// <summary>What is watched of an inode.</summary>
    public uint MaskOf(ulong node) => _byNode.TryGetValue(node, out (int Watch, uint Mask) watched) ? watched.Mask : 0;

    /// <summary>
    /// Forgets all inodes. The kernel's watches stay until <see cref="RemoveStale"/>: a vCPU that resets the device may not
    /// call for their removal.
    /// </summary>
    public void Clear()
    {
        _stale.AddRange(_byWatch.Keys);
        _byWatch.Clear();
        _byNode.Clear();
    }

    /// <summary>Removes what <see cref="Clear"/> left; on a thread that serves files.</summary>
    public void RemoveStale()
    {
        foreach (int watch in _stale)
        {
            _ = Libc.inotify_rm_watch(Fd!.Value, watch);
        }

        _stale.Clear();
    }

    /// <inheritdoc/>
    public void Dispose() => Fd?.Dispose();

    // Safe: the link has room for any descriptor's number; the kernel reads it only.
    private unsafe int Probe(int fd)
    {
        byte* link = stackalloc byte[ProcFd.NameLength];
        ProcFd.Format(fd, link);
        return Fd is null ? -1 : Libc.inotify_add_watch(Fd.Value, link, Libc.IN_DELETE_SELF | Libc.IN_MASK_ADD);
    }

    private void DropUnused(int watch)
    {
        if (watch >= 0 && !_byWatch.ContainsKey(watch))
        {
            _ = Libc.inotify_rm_watch(Fd!.Value, watch);
        }
    }
}
