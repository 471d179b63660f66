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
    private readonly HashSet<string> _mounted = [];
    private readonly string _root;
    private readonly TagMounter _mounter;

    /// <summary>Creates the set, empty.</summary>
    /// <param name="root">Directory that holds the mount points.</param>
    /// <param name="mounter">Mounts one.</param>
    public FileSystems(string root, TagMounter mounter)
    {
        _root = root;
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
            fixed (byte* p = Encoding.UTF8.GetBytes(directory + '\0'))
            {
                if (Libc.mkdirat(Libc.AT_FDCWD, p, 0x1c0) < 0 && Check.LastErrno != Errno.EEXIST)
                {
                    Check.Throw("mkdir", directory);
                }
            }

            _mounter(tag, directory);
        }
        catch (LinuxException e)
        {
            throw new SetupException($"mounting the virtio-fs device with tag \"{tag}\" in the guest", e);
        }

        _mounted.Add(tag);
    }

    /// <summary>Unmounts everything; what is busy is detached.</summary>
    public void Unmount()
    {
        foreach (string tag in _mounted)
        {
            _ = Libc.umount2(PathOf(tag), Libc.MNT_DETACH);
        }

        _mounted.Clear();
    }
}
