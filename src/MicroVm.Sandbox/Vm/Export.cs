using MicroVm.Linux;
using MicroVm.Linux.Jail;
using MicroVm.Linux.Native;

namespace MicroVm.Sandbox.Vm;

/// <summary>A host directory or file that the VM's virtio-fs device shows; owns its descriptors.</summary>
internal sealed record Export(string Name, SafeFd File, bool ReadOnly, bool IsFile) : IDisposable
{
    /// <summary>Mount tag of the VM's virtio-fs device.</summary>
    internal const string Tag = "microvm";

    /// <summary>Name of the container's root file system, which nothing but its VM is expected to change while it runs.</summary>
    internal const string Rootfs = "rootfs";

    /// <summary>
    /// The same directory as a detached tree of slave mounts, for a mount namespace in which the host's later mounts appear;
    /// null when the export does not follow them. Where it is not null, <see cref="File"/> is without the mounts below.
    /// </summary>
    internal SafeFd? Follows { get; init; }

    /// <summary>There are mounts below the directory on the host, and <see cref="File"/> is without them.</summary>
    internal bool HidesMounts { get; init; }

    /// <summary>The container may connect to the host's sockets in this directory.</summary>
    internal bool ShowsSockets { get; init; }

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
    /// <exception cref="SandboxException">The kernel refused.</exception>
    internal static Export Detach(string name, SafeFd file, uint type, bool readOnly, string what, bool recursive = true, bool follows = false, bool showsSockets = false)
    {
        SafeFd? slave = null;
        try
        {
            slave = follows ? DetachedMount.Clone(file, readOnly: false, what, recursive, Libc.MS_SLAVE) : null;
            return new Export(name, DetachedMount.Clone(file, readOnly, what, recursive && !follows, Libc.MS_PRIVATE), readOnly, type == Libc.S_IFREG)
            {
                Follows = slave,
                ShowsSockets = showsSockets,
            };
        }
        catch (LinuxException e)
        {
            slave?.Dispose();
            throw new SandboxException($"{what} cannot be shown to the VM: {e.Message}", e);
        }
    }

    public void Dispose()
    {
        File.Dispose();
        Follows?.Dispose();
    }
}
