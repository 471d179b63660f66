using MicroVm.Linux;
using MicroVm.Linux.Jail;
using MicroVm.Linux.Native;
using MicroVm.Oci.Config;
using MicroVm.Sandbox.Plan;

namespace MicroVm.Sandbox.Proxies;

/// <summary>
/// A mount namespace that holds what of a container's files the host has: its root file system and its volumes, read-only where
/// they are so inside. Callers enter /proc/PID/ns/mnt of a container to copy files (podman cp); in the host's own namespace
/// they would read and write the host's files. What only the guest has, tmpfs and the like, is not in it; its /proc tells of the
/// processes that stand for the container's (<see cref="ProcessFiles"/>).
/// </summary>
internal sealed unsafe class ContainerMountNamespace : IDisposable
{
    private readonly SafeFd _root;
    private readonly List<(string Destination, SafeFd Tree)> _volumes = [];

    private ContainerMountNamespace(SafeFd root) => _root = root;

    /// <summary>Opens what the namespace will hold.</summary>
    /// <exception cref="LinuxException">Something cannot be opened.</exception>
    internal static ContainerMountNamespace Open(Spec spec, string bundle, string rootfs)
    {
        ContainerMountNamespace view = new(Clone(rootfs, spec.Root?.Readonly ?? false, recursive: true));
        try
        {
            foreach (Mount mount in (spec.Mounts ?? []).Where(m => MountPlan.IsBind(m) && !string.IsNullOrEmpty(m.Source)))
            {
                bool readOnly = mount.Options?.Exists(o => o is "ro" or "rro") ?? false;
                bool recursive = mount.Options?.Contains("rbind") ?? false;
                view._volumes.Add((mount.Destination!, Clone(Path.GetFullPath(Path.Combine(bundle, mount.Source!)), readOnly, recursive)));
            }
        }
        catch (LinuxException)
        {
            view.Dispose();
            throw;
        }

        return view;
    }

    /// <summary>Makes the namespace, of the calling thread alone, with the root file system.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    internal void Enter()
    {
        Check.Result(Libc.unshare(Libc.CLONE_NEWNS), "unshare", "CLONE_NEWNS");
        Check.Result(Libc.mount(null, "/", null, (nuint)(Libc.MS_REC | Libc.MS_PRIVATE), null), "mount", "/ private");
        using (SafeFd top = OpenPath("/"))
        {
            Attach(_root, top);
        }

        // pivot_root(2) stacks the old root on the new one when both are ".", from where it is detached.
        Check.Result(Libc.fchdir(_root.Value), "fchdir", "container's root");
        fixed (byte* here = "."u8)
        {
            Check.Result(Libc.pivot_root(here, here), "pivot_root", "container's root");
        }

        Check.Result(Libc.umount2(".", Libc.MNT_DETACH), "umount2", "host's root");
    }

    /// <summary>Attaches the volumes, on the same thread, once the guest has made their mount points.</summary>
    internal void AttachVolumes()
    {
        foreach ((string destination, SafeFd tree) in _volumes)
        {
            // One that lies in a file system of the guest has no place here.
            if (Find(destination) is { } place)
            {
                using (place)
                {
                    _ = DetachedMount.TryAttach(tree, place);
                }
            }
        }
    }

    public void Dispose()
    {
        _root.Dispose();
        _volumes.ForEach(v => v.Tree.Dispose());
    }

    // Docker's root file systems lie in a shared mount: what happens in a copy would happen there, too, and pivot_root(2) refuses it.
    private static SafeFd Clone(string path, bool readOnly, bool recursive)
    {
        using SafeFd file = OpenPath(path);
        return DetachedMount.Clone(file, readOnly, path, recursive, Libc.MS_PRIVATE);
    }

    private static SafeFd OpenPath(string path) => SafeFd.From(Libc.open(path, Libc.O_PATH | Libc.O_CLOEXEC, 0), "open", path);

    /// <summary>A path of the container's, whose links cannot lead out of its root.</summary>
    private SafeFd? Find(string path)
    {
        Libc.open_how how = new() { flags = (ulong)(Libc.O_PATH | Libc.O_CLOEXEC), resolve = Libc.RESOLVE_IN_ROOT };
        fixed (byte* p = System.Text.Encoding.UTF8.GetBytes(path + "\0"))
        {
            int fd = Resolved.Open(_root.Value, p, how);
            return fd < 0 ? null : new SafeFd(fd);
        }
    }

    private static void Attach(SafeFd tree, SafeFd place)
    {
        if (!DetachedMount.TryAttach(tree, place))
        {
            Check.Throw("move_mount", "container's root");
        }
    }
}
