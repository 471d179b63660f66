using System.Text;
using MicroVm.Linux;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Rootfs;

/// <summary>Mounts the file system of a virtio-fs tag at a directory.</summary>
public delegate void TagMounter(string tag, string directory);

/// <summary>
/// The virtio-fs file systems that containers' roots and volumes come from, each mounted once, when first needed, at a
/// place that no container sees. Used on the loop's thread, before a container's mount namespace is made.
/// </summary>
public sealed unsafe class FileSystems
{
    private const int MaxTagBytes = 36;

    // FUSE's handles: FILEID_INO64_GEN of linux/exportfs.h, with the node id's halves and a generation, which is 0 here.
    private const int FileIdInode64 = 0x81, NodeHandleWords = 5;
    private readonly HashSet<string> _mounted = [];
    private readonly HashSet<string> _growing = [];
    private readonly HashSet<string> _entered = [];

    // How many containers have each.
    private readonly Dictionary<string, int> _shared = [];
    private readonly string _root;
    private readonly string _own;
    private readonly TagMounter _mounter;
    private bool _ownMounted;

    /// <summary>Creates the set, empty.</summary>
    /// <param name="paths">Where the mount points are, and the agent's own tmpfs.</param>
    /// <param name="mounter">Mounts one.</param>
    public FileSystems(AgentPaths paths, TagMounter mounter)
    {
        ArgumentNullException.ThrowIfNull(paths);
        _root = paths.FileSystems;
        _own = paths.Own;
        _mounter = mounter;
    }

    /// <summary>mount(2) of a virtio-fs device.</summary>
    /// <exception cref="LinuxException">There is no such device (ENOENT, EINVAL), or the kernel lacks virtio-fs (ENODEV).</exception>
    public static void MountVirtioFs(string tag, string directory) =>
        Check.Result(Libc.mount(tag, directory, "virtiofs", 0, null), "mount virtiofs", tag);

    /// <summary>The directory at which <paramref name="tag"/> is mounted, for a path within the mount namespace of a container too.</summary>
    /// <exception cref="SetupException">The tag is malformed.</exception>
    public string PathOf(string tag)
    {
        ArgumentNullException.ThrowIfNull(tag);
        if (tag.Length == 0 || Encoding.UTF8.GetByteCount(tag) > MaxTagBytes || tag is "." or ".." || tag.AsSpan().ContainsAny('/', '\0'))
        {
            throw new SetupException($"\"{tag}\" is no virtio-fs tag: 1 to {MaxTagBytes} bytes without a slash");
        }

        return $"{_root}/{tag}";
    }

    /// <summary>Mounts <paramref name="tag"/> unless it is mounted.</summary>
    /// <exception cref="SetupException">It cannot be mounted.</exception>
    public void Need(string tag)
    {
        string directory = PathOf(tag);
        if (_mounted.Contains(tag))
        {
            return;
        }

        try
        {
            MakeDirectory(directory);
            _mounter(tag, directory);
        }
        catch (LinuxException e)
        {
            throw new SetupException($"mounting the virtio-fs device with tag \"{tag}\" in the guest", e);
        }

        _mounted.Add(tag);
    }

    /// <summary>
    /// Mounts <paramref name="tag"/> unless it is mounted, and what is mounted by itself on the way to <paramref name="path"/>: in
    /// this mount namespace, from which those of containers are copied, so that all of them have one file system of each.
    /// </summary>
    /// <exception cref="SetupException">It cannot be mounted.</exception>
    public void Need(string tag, string path)
    {
        ArgumentNullException.ThrowIfNull(path);
        Need(tag);
        int slash = path.LastIndexOf('/');
        string folder = slash > 0 ? path[..slash] : "";
        if (folder.Length == 0 || !_entered.Add($"{tag}/{folder}"))
        {
            return;
        }

        using RootDirectory root = RootDirectory.At(PathOf(tag));
        root.TryOpen(folder, Libc.O_PATH | Libc.O_DIRECTORY)?.Dispose();
    }

    /// <summary>
    /// Opens an inode by its node id, O_PATH, if the kernel has it: in whichever of the file systems of <paramref name="tag"/> it is.
    /// </summary>
    /// <returns>Null when it is in none.</returns>
    /// <exception cref="SetupException">The tag is malformed.</exception>
    public SafeFd? OpenNode(string tag, ulong node)
    {
        string root = PathOf(tag);
        string folders = $"{tag}/";
        uint* handle = stackalloc uint[NodeHandleWords];
        foreach (string path in _entered.Where(e => e.StartsWith(folders, StringComparison.Ordinal)).Select(e => $"{_root}/{e}").Append(root))
        {
            using SafeFd mount = new(Libc.open(path, Libc.O_RDONLY | Libc.O_DIRECTORY | Libc.O_CLOEXEC, 0));
            *(Libc.file_handle*)handle = new Libc.file_handle { handle_bytes = 3 * sizeof(uint), handle_type = FileIdInode64 };
            (handle[2], handle[3], handle[4]) = ((uint)(node >> 32), (uint)node, 0);
            int fd = mount.IsInvalid ? -1 : Libc.open_by_handle_at(mount.Value, (Libc.file_handle*)handle, Libc.O_PATH | Libc.O_CLOEXEC);
            if (fd >= 0)
            {
                return new SafeFd(fd);
            }
        }

        return null;
    }

    /// <summary>There are exports that grow.</summary>
    public bool HasGrowing => _growing.Count > 0;

    /// <summary>
    /// Where an export is mounted to which mounts are added while containers run: it is shared, so that they appear in the
    /// containers' copies, too.
    /// </summary>
    /// <param name="tag">The tag of the export's device.</param>
    /// <param name="export">Its name, with the path before it or without.</param>
    public string GrowingPathOf(string tag, string export)
    {
        ArgumentNullException.ThrowIfNull(export);
        export = export[(export.LastIndexOf('/') + 1)..];
        CheckComponent(export);
        return $"{_own}/export.{tag}.{export}";
    }

    /// <summary>Where the socket is whose connections go to a port of the host.</summary>
    public string SocketPathOf(uint port) => string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{_own}/socket.{port}");

    /// <summary>Mounts an export at <see cref="GrowingPathOf"/> unless it is mounted.</summary>
    /// <exception cref="SetupException">It cannot be mounted.</exception>
    public void NeedGrowing(string tag, string export)
    {
        Need(tag, export);
        string path = GrowingPathOf(tag, export);
        if (_growing.Contains(path))
        {
            return;
        }

        try
        {
            NeedOwn();
            MakeDirectory(path);
            Check.Result(Libc.mount($"{PathOf(tag)}/{export}", path, null, (nuint)Libc.MS_BIND, null), "mount", path);
            Check.Result(Libc.mount(null, path, null, (nuint)Libc.MS_SHARED, null), "mount", path);
            _growing.Add(path);
        }
        catch (LinuxException e)
        {
            throw new SetupException($"showing the export \"{export}\" of the virtio-fs device with tag \"{tag}\"", e);
        }
    }

    /// <summary>Unmounts what <see cref="NeedGrowing"/> mounted, once its container is gone.</summary>
    public void DropGrowing(string tag, string export)
    {
        string path = GrowingPathOf(tag, export);
        if (_growing.Remove(path))
        {
            Unmount(path);
        }
    }

    /// <summary>Where a tmpfs is that containers share.</summary>
    public string SharedPathOf(string name)
    {
        CheckComponent(name);
        return $"{_own}/shared.{name}";
    }

    /// <summary>Mounts a tmpfs at <see cref="SharedPathOf"/> unless it is mounted, for one more container.</summary>
    /// <exception cref="SetupException">It cannot be mounted.</exception>
    public void NeedShared(string name, string data)
    {
        string path = SharedPathOf(name);
        if (!_shared.TryGetValue(name, out int users))
        {
            try
            {
                NeedOwn();
                MakeDirectory(path);
                Check.Result(Libc.mount("tmpfs", path, "tmpfs", (nuint)(Libc.MS_NOSUID | Libc.MS_NODEV | Libc.MS_NOEXEC), data), "mount", path);
            }
            catch (LinuxException e)
            {
                throw new SetupException("making a tmpfs for containers to share", e);
            }
        }

        _shared[name] = users + 1;
    }

    /// <summary>Unmounts what <see cref="NeedShared"/> mounted, when its last container is gone.</summary>
    public void DropShared(string name)
    {
        if (_shared.TryGetValue(name, out int users) && users > 1)
        {
            _shared[name] = users - 1;
        }
        else if (_shared.Remove(name))
        {
            Unmount(SharedPathOf(name));
        }
    }

    /// <summary>Mounts the tmpfs of <see cref="AgentPaths.Own"/> unless it is mounted.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void NeedOwn()
    {
        if (!_ownMounted)
        {
            Check.Result(Libc.mount("tmpfs", _own, "tmpfs", (nuint)(Libc.MS_NOSUID | Libc.MS_NODEV | Libc.MS_NOEXEC), "mode=700"), "mount", _own);
            _ownMounted = true;
        }
    }

    /// <summary>Unmounts everything; what is busy is detached.</summary>
    public void Unmount()
    {
        foreach (string tag in _mounted)
        {
            _ = Libc.umount2(PathOf(tag), Libc.MNT_DETACH);
        }

        _mounted.Clear();
        _entered.Clear();
    }

    private static void Unmount(string path)
    {
        _ = Libc.umount2(path, Libc.MNT_DETACH);
        fixed (byte* p = Encoding.UTF8.GetBytes(path + '\0'))
        {
            _ = Libc.unlinkat(Libc.AT_FDCWD, p, Libc.AT_REMOVEDIR);
        }
    }

    private static void MakeDirectory(string path)
    {
        fixed (byte* p = Encoding.UTF8.GetBytes(path + '\0'))
        {
            if (Libc.mkdirat(Libc.AT_FDCWD, p, 0x1c0) < 0 && Check.LastErrno != Errno.EEXIST)
            {
                Check.Throw("mkdir", path);
            }
        }
    }

    private static void CheckComponent(string name)
    {
        if (name is "" or "." or ".." || name.AsSpan().ContainsAny('/', '\0'))
        {
            throw new SetupException($"\"{name}\" is no export of a virtio-fs device");
        }
    }
}
