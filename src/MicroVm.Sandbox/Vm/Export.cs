using MicroVm.Linux;
using MicroVm.Linux.Jail;
using MicroVm.Linux.Native;
using MicroVm.VmmControl;

namespace MicroVm.Sandbox.Vm;

/// <summary>A host directory or file that the VM's virtio-fs device shows; owns its descriptors.</summary>
internal sealed record Export(string Name, SafeFd File, bool ReadOnly, bool IsFile) : IDisposable
{
    /// <summary>Mount tag of the VM's virtio-fs device.</summary>
    internal const string Tag = "microvm";

    /// <summary>Name of the container's root file system, which nothing but its VM is expected to change while it runs.</summary>
    internal const string Rootfs = "rootfs";

    /// <summary>Its path in the virtio-fs device's root directory.</summary>
    internal string GuestPath => PathOf(File, Name);

    /// <summary>
    /// The same directory as a detached tree with the mounts below it, each of which becomes an export of its own; null when
    /// there are none to be shown. Where it is not null, <see cref="File"/> is without them. The tree's mounts are slaves, so
    /// that the host's later mounts appear in it, or private.
    /// </summary>
    internal SafeFd? Tree { get; init; }

    /// <summary>Nothing can be changed through the mounts of <see cref="Tree"/> below its root either.</summary>
    internal bool ReadOnlyBelow { get; init; }

    /// <summary>There are mounts below the directory on the host, and <see cref="File"/> is without them.</summary>
    internal bool HidesMounts { get; init; }

    /// <summary>
    /// The container may connect to the host's sockets in this directory, and the host to those that it makes; FIFOs in it, or the
    /// FIFO that it is, are the host's.
    /// </summary>
    internal bool ShowsSockets { get; init; }

    /// <summary>Sockets of the host are looked for in it.</summary>
    internal bool FollowsSockets => ShowsSockets && !IsFile;

    /// <summary>The host listens in place of sockets that containers make in this directory.</summary>
    internal bool SharesSockets => FollowsSockets && !ReadOnly;

    /// <summary>The path in the virtio-fs device's root directory of a directory or file that is exported as <paramref name="name"/>.</summary>
    internal static string PathOf(SafeFd file, string name)
    {
        Libc.statx_t stat = FileType.Describe(file, name);
        return FsExportName.PathOf(stat.stx_dev_major, stat.stx_dev_minor, name);
    }

    /// <summary>Opens a directory or a regular file for export.</summary>
    /// <param name="name">Its name in the virtio-fs root directory.</param>
    /// <param name="path">Its path on the host.</param>
    /// <param name="readOnly">Nothing can be changed through it.</param>
    /// <param name="what">What messages call it.</param>
    /// <exception cref="SandboxException">It does not exist, or is something else.</exception>
    internal static Export Open(string name, string path, bool readOnly, string what)
    {
        using SafeFd file = OpenPath(path, what);
        uint type = FileType.Of(file);
        return type is Libc.S_IFDIR or Libc.S_IFREG
            ? Detach(name, file, type, readOnly, $"{what} {path}")
            : throw new SandboxException($"{what} {path} is neither a directory nor a regular file");
    }

    /// <summary>Opens the path of a host file, O_PATH, through links.</summary>
    /// <exception cref="SandboxException">It does not exist.</exception>
    internal static SafeFd OpenPath(string path, string what)
    {
        int fd = Libc.open(path, Libc.O_PATH | Libc.O_CLOEXEC, 0);
        return fd >= 0 ? new SafeFd(fd) : throw new SandboxException($"{what} {path}: {LinuxException.Text(Check.LastErrno).ToLowerInvariant()}");
    }

    /// <summary>Makes the export of an open directory or regular file.</summary>
    /// <remarks>
    /// The VMM is given a tree without parents: from an ordinary directory's descriptor it could go up to the host's root.
    /// It is private: whether a detached tree takes part in propagation depends on the kernel's version.
    /// </remarks>
    /// <param name="name">Its name in the virtio-fs root directory.</param>
    /// <param name="file">The directory or file; borrowed.</param>
    /// <param name="type">S_IFDIR or S_IFREG.</param>
    /// <param name="readOnly">Nothing can be changed through it.</param>
    /// <param name="what">What messages call it.</param>
    /// <param name="recursive">With the mounts below it.</param>
    /// <param name="tree">MS_SLAVE or MS_PRIVATE for a <see cref="Tree"/>; 0 for none.</param>
    /// <exception cref="SandboxException">The kernel refused.</exception>
    internal static Export Detach(string name, SafeFd file, uint type, bool readOnly, string what, bool recursive = true, ulong tree = 0)
    {
        SafeFd? below = null;
        try
        {
            below = tree != 0 ? DetachedMount.Clone(file, readOnly: false, what, recursive, tree) : null;
            return new Export(name, DetachedMount.Clone(file, readOnly, what, recursive && tree == 0, Libc.MS_PRIVATE), readOnly, type != Libc.S_IFDIR)
            {
                Tree = below,
            };
        }
        catch (LinuxException e)
        {
            below?.Dispose();
            throw new SandboxException($"{what} cannot be shown to the VM: {e.Message}", e);
        }
    }

    public void Dispose()
    {
        File.Dispose();
        Tree?.Dispose();
    }
}
