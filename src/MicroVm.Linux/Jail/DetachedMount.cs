using MicroVm.Linux.Native;

namespace MicroVm.Linux.Jail;

/// <summary>
/// A directory or file as the root of a mount that belongs to no mount namespace and lives as long as its descriptor
/// (open_tree(2), Linux 5.12 and later). What is given such a descriptor can reach nothing above it: ".." ends there, which
/// it does not in the descriptor of an ordinary directory, whatever the root directory of the process is.
/// </summary>
public static unsafe class DetachedMount
{
    /// <summary>Clones what <paramref name="file"/> refers to; set-id bits and device nodes have no effect in it.</summary>
    /// <param name="file">A directory or regular file; O_PATH will do. Borrowed.</param>
    /// <param name="readOnly">Nothing can be changed through it.</param>
    /// <param name="name">What messages call it.</param>
    /// <param name="recursive">With the mounts beneath it.</param>
    /// <param name="propagation">MS_PRIVATE or MS_SLAVE; 0 leaves the clone in its original's peer group.</param>
    /// <returns>An O_PATH descriptor of the clone's root.</returns>
    /// <exception cref="LinuxException">No CAP_SYS_ADMIN; the mount is unbindable; the kernel is older.</exception>
    public static SafeFd Clone(SafeFd file, bool readOnly, string name, bool recursive = true, ulong propagation = 0)
    {
        ArgumentNullException.ThrowIfNull(file);
        byte empty = 0;
        uint flags = Libc.OPEN_TREE_CLONE | Libc.OPEN_TREE_CLOEXEC | Libc.AT_EMPTY_PATH | (recursive ? Libc.AT_RECURSIVE : 0u);
        SafeFd clone = SafeFd.From(
            Libc.open_tree(file.Value, &empty, flags), "open_tree", name);
        Libc.mount_attr attributes = new()
        {
            attr_set = Libc.MOUNT_ATTR_NOSUID | Libc.MOUNT_ATTR_NODEV | (readOnly ? Libc.MOUNT_ATTR_RDONLY : 0),
            propagation = propagation,
        };
        if (Libc.mount_setattr(clone.Value, &empty, Libc.AT_EMPTY_PATH | Libc.AT_RECURSIVE, &attributes, (nuint)sizeof(Libc.mount_attr)) < 0)
        {
            Errno errno = Check.LastErrno;
            clone.Dispose();
            throw new LinuxException(errno, "mount_setattr", name);
        }

        return clone;
    }

    /// <summary>Attaches a detached mount to the file tree of the calling thread's mount namespace.</summary>
    /// <param name="mount">Root of the mount, as <see cref="Clone"/> gives it. Borrowed.</param>
    /// <param name="place">Where: a directory for a directory, anything else for a file; O_PATH will do. Borrowed.</param>
    /// <returns>False when the kernel refuses; errno says why.</returns>
    public static bool TryAttach(SafeFd mount, SafeFd place)
    {
        ArgumentNullException.ThrowIfNull(mount);
        ArgumentNullException.ThrowIfNull(place);
        byte empty = 0;
        const uint flags = Libc.MOVE_MOUNT_F_EMPTY_PATH | Libc.MOVE_MOUNT_T_EMPTY_PATH;
        return Libc.move_mount(mount.Value, &empty, place.Value, &empty, flags) == 0;
    }
}
