using System.Globalization;
using MicroVm.Linux;
using MicroVm.Linux.Jail;
using MicroVm.Linux.Native;

namespace MicroVm.Agent.Rootfs;

/// <summary>mount(2) and its newer siblings on descriptors.</summary>
public static unsafe class MountCalls
{
    /// <summary>mount(2) onto the file that <paramref name="target"/> refers to.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static void Mount(string? source, SafeFd target, string? type, ulong flags, string? data) =>
        Check.Result(Libc.mount(source, PathOf(target), type, (nuint)flags, data), "mount");

    /// <summary>Binds <paramref name="source"/> onto <paramref name="target"/>.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static void Bind(SafeFd source, SafeFd target, bool recursive) =>
        Mount(PathOf(source), target, null, Libc.MS_BIND | (recursive ? Libc.MS_REC : 0), null);

    /// <summary>A detached copy of the mounts at <paramref name="source"/>.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static SafeFd CloneTree(SafeFd source, bool recursive)
    {
        ArgumentNullException.ThrowIfNull(source);
        byte empty = 0;
        uint flags = Libc.OPEN_TREE_CLONE | Libc.OPEN_TREE_CLOEXEC | Libc.AT_EMPTY_PATH | (recursive ? Libc.AT_RECURSIVE : 0u);
        return SafeFd.From(Libc.open_tree(source.Value, &empty, flags), "open_tree");
    }

    /// <summary>Attaches a detached mount at <paramref name="target"/>.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static void Attach(SafeFd tree, SafeFd target)
    {
        if (!DetachedMount.TryAttach(tree, target))
        {
            Check.Throw("move_mount");
        }
    }

    /// <summary>Changes the attributes (MOUNT_ATTR_*) of the mount that <paramref name="mount"/> is the root of.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static void SetAttributes(SafeFd mount, ulong set, ulong clear, bool recursive)
    {
        ArgumentNullException.ThrowIfNull(mount);
        byte empty = 0;
        Libc.mount_attr attr = new() { attr_set = set, attr_clr = clear };
        uint flags = Libc.AT_EMPTY_PATH | (recursive ? Libc.AT_RECURSIVE : 0u);
        Check.Result(
            Libc.mount_setattr(mount.Value, &empty, flags, &attr, (nuint)sizeof(Libc.mount_attr)), "mount_setattr");
    }

    /// <summary>Gives a mount that has no attributes yet those of MS_* flags.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static void SetFlags(SafeFd mount, ulong flags)
    {
        // MOUNT_ATTR__ATIME (linux/mount.h): how times are kept is one field.
        const ulong howTimes = 0x70;
        ulong attributes = Attributes(flags);
        SetAttributes(mount, attributes, (attributes & howTimes) != 0 ? howTimes : 0, recursive: false);
    }

    /// <summary>Makes what is at <paramref name="path"/> read-only by a mount of itself.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static void MakeReadOnly(SafeFd path)
    {
        using SafeFd tree = CloneTree(path, recursive: true);
        SetAttributes(tree, Libc.MOUNT_ATTR_RDONLY, 0, recursive: false);
        Attach(tree, path);
    }

    /// <summary>Finishes an fsopen(2) context: options, creation, and a detached mount with MS_* flags as attributes.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public static SafeFd FinishFileSystem(SafeFd context, string source, string data, ulong flags)
    {
        ArgumentNullException.ThrowIfNull(context);
        ArgumentNullException.ThrowIfNull(source);
        ArgumentNullException.ThrowIfNull(data);
        if (source.Length > 0)
        {
            Configure(context, Libc.FSCONFIG_SET_STRING, "source", source);
        }

        foreach (string option in data.Split(',', StringSplitOptions.RemoveEmptyEntries))
        {
            int equals = option.IndexOf('=', StringComparison.Ordinal);
            Configure(
                context,
                equals < 0 ? Libc.FSCONFIG_SET_FLAG : Libc.FSCONFIG_SET_STRING,
                equals < 0 ? option : option[..equals],
                equals < 0 ? null : option[(equals + 1)..]);
        }

        Configure(context, Libc.FSCONFIG_CMD_CREATE, null, null);
        return SafeFd.From(Libc.fsmount(context.Value, Libc.FSMOUNT_CLOEXEC, (uint)Attributes(flags)), "fsmount");
    }

    /// <summary>The path by which a descriptor of this process is named to calls that take paths.</summary>
    public static string PathOf(SafeFd fd)
    {
        ArgumentNullException.ThrowIfNull(fd);
        return string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{fd.Value}");
    }

    private static ulong Attributes(ulong flags)
    {
        // The first four bits are the same in both numberings.
        ulong attributes = flags & (Libc.MS_RDONLY | Libc.MS_NOSUID | Libc.MS_NODEV | Libc.MS_NOEXEC);
        attributes |= (flags & Libc.MS_NODIRATIME) != 0 ? Libc.MOUNT_ATTR_NODIRATIME : 0;
        attributes |= (flags & Libc.MS_NOATIME) != 0 ? Libc.MOUNT_ATTR_NOATIME
            : (flags & Libc.MS_STRICTATIME) != 0 ? Libc.MOUNT_ATTR_STRICTATIME : 0;
        return attributes;
    }

    private static void Configure(SafeFd context, int command, string? key, string? value)
    {
        byte[]? k = key is null ? null : System.Text.Encoding.UTF8.GetBytes(key + '\0');
        byte[]? v = value is null ? null : System.Text.Encoding.UTF8.GetBytes(value + '\0');
        fixed (byte* pk = k)
        {
            fixed (byte* pv = v)
            {
                Check.Result(Libc.fsconfig(context.Value, (uint)command, pk, pv, 0), "fsconfig", key);
            }
        }
    }
}
